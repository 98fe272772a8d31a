"""The body of `/v1/chat/completions`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, JsonValue, model_validator

from janusflow.serving.api.body import Body, Job

StopString = Annotated[str, Field(min_length=1, max_length=1000)]
EXAMPLES: list[JsonValue] = [
    {"model": "tiny", "messages": [{"role": "user", "content": "name three colors."}]},
    {
        "model": "tiny",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}},
                    {"type": "text", "text": "what color is the circle?"},
                ],
            }
        ],
        "stream": True,
        "max_completion_tokens": 32,
    },
]


class ImageUrl(Body):
    """URL of a picture."""

    url: Annotated[str, Field(description="A data:image/...;base64, URI, or an http(s) address.")]
    detail: Annotated[
        Literal["auto", "low", "high"], Field(description="Has no effect: pictures are read at the model's size.")
    ] = "auto"


class TextPart(Body):
    """Text in a message."""

    type: Literal["text"]
    text: str


class ImagePart(Body):
    """A picture in a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Message(Body):
    """One message; roles take turns after an optional system (or developer) message."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str | list[Part], Field(description="A text, or parts of text and pictures.")]

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, value: Any) -> Any:
        """Drop empty fields: clients send messages back as they received them, with empty lists among the fields."""
        if not isinstance(value, dict):
            return value
        return {name: one for name, one in value.items() if one not in (None, []) or name == "content"}


class StreamOptions(Body):
    """Options of a stream."""

    include_usage: Annotated[bool, Field(description="Whether the last chunk has the number of tokens.")] = False
    include_obfuscation: Literal[False] = False


class ResponseFormat(Body):
    """Format of the answer; only plain text."""

    type: Literal["text"] = "text"


class ChatBody(Job):
    """A conversation to answer, with OpenAI's names; `top_k` and `repetition_penalty` are transformers' names."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    max_tokens: Annotated[int | None, Field(ge=1, description="The older name of max_completion_tokens.")] = None
    n: Annotated[int, Field(ge=1)] = 1
    stop: Annotated[
        StopString | Annotated[list[StopString], Field(max_length=4)],
        Field(description="At most 4, of at most 1,000 characters each."),
    ] = Field(default_factory=list)
    stream: bool = False
    stream_options: StreamOptions | None = None
    seed: Annotated[int | None, Field(ge=0, lt=2**63, description="Answer i of n gets seed + i.")] = None
    temperature: Annotated[
        float | None,
        Field(ge=0, le=2, description="0 is greedy, the default; 1 is the default if top_p or top_k is given."),
    ] = None
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0, description="0 is all tokens.")] = 0
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] = 1.0
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    logprobs: bool = False
    top_logprobs: Annotated[int | None, Field(ge=0, le=20)] = None
    response_format: ResponseFormat = ResponseFormat()
    modalities: list[Literal["text"]] = Field(default=["text"])

    model_config = ConfigDict(json_schema_extra={"examples": EXAMPLES})
