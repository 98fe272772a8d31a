"""`janusflow serve`: one process with OpenAI's HTTP interface. Heavy imports happen inside the command."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from janusflow.cli.options import Compile, Debug, Device, Dtype, Model, Quantize, SftFormat, Vae, one_sentence
from janusflow.extras import require

Adapters = Annotated[
    Optional[list[str]], typer.Option(help="NAME=FOLDER of low-rank adapters, served as MODEL:NAME; repeatable.")
]
ApiKeyFile = Annotated[
    Optional[Path],
    typer.Option(help="File with an API key or sha256:HASH per line; the default is JANUSFLOW_API_KEYS."),
]
Limits = Annotated[
    Optional[list[str]], typer.Option(help="NAME=NUMBER, a limit of one request, such as max_steps=50; repeatable.")
]


@one_sentence
def serve(
    model: Model = "tiny",
    name: Annotated[Optional[str], typer.Option(help="Name for clients; by default the last part of --model.")] = None,
    adapter: Adapters = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; other addresses than loopback require API keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = 8000,
    api_key_file: ApiKeyFile = None,
    max_text_wait: Annotated[float, typer.Option(help="Longest wait of a text token behind pictures, in s.")] = 0.2,
    picture_share: Annotated[float, typer.Option(help="Share of the work for pictures when both wait.")] = 0.5,
    max_queue: Annotated[
        int, typer.Option(help="Maximum number of waiting texts, and of waiting pictures; further requests get 429.")
    ] = 64,
    max_pictures: Annotated[int, typer.Option(help="Most pictures in progress at a time.")] = 8,
    max_texts: Annotated[int, typer.Option(help="Most texts in progress at a time.")] = 32,
    limit: Limits = None,
    page: Annotated[bool, typer.Option("--page", help="Show a page to generate, edit and chat.")] = False,
    grace: Annotated[float, typer.Option(min=0, help="Seconds for accepted requests when the server stops.")] = 60,
    ray: Annotated[bool, typer.Option("--ray", help="Run replicas on Ray; needs the extra \\[ray].")] = False,
    replicas: Annotated[int, typer.Option(min=1, help="With --ray: smallest number of copies of the model.")] = 1,
    max_replicas: Annotated[
        Optional[int], typer.Option(help="With --ray: maximum number of copies under load.")
    ] = None,
    ray_address: Annotated[
        Optional[str], typer.Option(help="Address of a running cluster; by default, a local one is started.")
    ] = None,
    replica_cpus: Annotated[float, typer.Option(help="With --ray: processor cores of each replica.")] = 1,
    replica_gpus: Annotated[float, typer.Option(help="With --ray: GPUs of each replica.")] = 0,
    vae: Vae = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quantize: Quantize = None,
    compile: Compile = "off",
    sft_format: SftFormat = None,
    debug: Debug = False,
) -> None:
    """Serve a model over HTTP, with OpenAI's requests for chats and pictures.

    Clients use http://127.0.0.1:8000/v1; http://127.0.0.1:8000/docs documents every request.

    [bold]Examples[/bold]

      janusflow serve --page

      janusflow serve --model deepseek-ai/JanusFlow-1.3B --dtype bfloat16 --port 8001

      janusflow serve --adapter mine=runs/mine/export/adapter

      janusflow serve --host 0.0.0.0 --api-key-file keys.txt --limit max_steps=50

      janusflow serve --ray --replicas 2 --max-replicas 8 --replica-gpus 1
    """
    require("serving", "fastapi", "uvicorn", "prometheus_client", "multipart", "httpcore2")
    if ray:
        require("serving with --ray", "ray", "ray.serve")
    elif replicas > 1 or max_replicas is not None or ray_address is not None or replica_gpus or replica_cpus != 1:
        raise ValueError("--replicas, --max-replicas, --ray-address, --replica-cpus and --replica-gpus need --ray")
    if name == "":
        raise ValueError("name is empty; expected what clients call the model, or leave out --name")
    from janusflow.serving.command import ServeOptions, run_command

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    cluster: dict[str, Any] = {"replicas": replicas, "max_replicas": max_replicas, "address": ray_address}
    cluster |= {"cpus": replica_cpus, "gpus": replica_gpus}
    opening: dict[str, Any] = {"vae": vae, "device": device, "dtype": dtype, "quantize": quantize}
    opening |= {"compile": compile, "sft_format": sft_format}
    run_command(
        ServeOptions(
            model=model,
            name=name,
            adapters=adapter or [],
            host=host,
            port=port,
            api_key_file=api_key_file,
            queue={"max_queue": max_queue, "max_pictures": max_pictures, "max_texts": max_texts},
            policy={"max_text_wait": max_text_wait, "picture_share": picture_share},
            limits=limit or [],
            grace=grace,
            page=page,
            cluster=cluster if ray else None,
            opening=opening,
        )
    )
