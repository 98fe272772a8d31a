"""What can be checked of deploy/serving without a container daemon: files that are named exist, and metrics too."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import yaml

from janusflow.cli.serve import serve
from janusflow.serving.metrics import Metrics

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "serving"


def composed() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    return found


def test_every_mounted_file_and_the_build_exist() -> None:
    services = composed()["services"]
    mounts = [volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])]
    files = [mount for mount in mounts if mount.startswith(".")]
    assert files and all((FOLDER / mount).is_file() for mount in files)
    build = services["janusflow"]["build"]
    assert (FOLDER / build["context"] / build["dockerfile"]).resolve() == FOLDER / "Dockerfile"


def test_the_image_copies_what_exists_and_waits_longer_than_the_grace_period() -> None:
    copies = re.findall(r"^COPY (.+) \S+$", (FOLDER / "Dockerfile").read_text(), re.MULTILINE)
    assert copies and all((ROOT / name).exists() for line in copies for name in line.split())
    assert int(composed()["services"]["janusflow"]["stop_grace_period"].rstrip("s")) >= 65


def test_the_ray_job_starts_the_command_with_options_that_it_has_on_pods_that_it_finds() -> None:
    job, service = yaml.safe_load_all((FOLDER / "kuberay.yaml").read_text())
    command, *options = job["spec"]["entrypoint"].split()
    known = {f"--{name.replace('_', '-')}" for name in inspect.signature(serve).parameters}
    assert command == "janusflow" and {one for one in options if one.startswith("--")} <= known
    groups = job["spec"]["rayClusterSpec"]
    head = groups["headGroupSpec"]["template"]
    assert service["spec"]["selector"].items() <= head["metadata"]["labels"].items()
    assert head["spec"]["terminationGracePeriodSeconds"] >= 65
    worker = groups["workerGroupSpecs"][0]
    assert int(options[options.index("--max-replicas") + 1]) == worker["maxReplicas"]
    images = {part["spec"]["containers"][0]["image"] for part in (head, worker["template"])}
    assert len(images) == 1


def test_prometheus_and_grafana_find_the_server_and_each_other() -> None:
    settings = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert settings["scrape_configs"][0]["static_configs"][0]["targets"] == ["janusflow:8000"]
    source = yaml.safe_load((FOLDER / "grafana" / "datasource.yml").read_text())["datasources"][0]
    panels = json.loads((FOLDER / "grafana" / "dashboard.json").read_text())["panels"]
    assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}


def test_the_dashboard_shows_metrics_that_the_server_has() -> None:
    panels = json.loads((FOLDER / "grafana" / "dashboard.json").read_text())["panels"]
    shown = {name for panel in panels for one in panel["targets"] for name in re.findall(r"\b[a-z]+_\w+", one["expr"])}
    shown -= {"histogram_quantile"}
    families = Metrics().text().decode()
    for name in shown:
        family = re.sub(r"_(total|bucket|sum|count)$", "", name)
        assert re.search(rf"^# TYPE {family}(_total)? ", families, re.MULTILINE), name
