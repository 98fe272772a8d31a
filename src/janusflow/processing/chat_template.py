"""How conversations become text: the settings of a checkpoint, and the family's chat templates in Jinja.

With these templates `apply_chat_template` gives the same strings as the official code.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import Annotated, TypeAlias

from annotated_types import Interval, MinLen

from janusflow.arguments import quoted

Tag: TypeAlias = Annotated[str, MinLen(1)]

ROLE_WORDS = {"deepseek_old": ("User", "Assistant"), "deepseek": ("<|User|>", "<|Assistant|>")}
SYSTEM_PROMPT = (
    "You are a helpful language and vision assistant. "
    "You are able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language."
)
TEMPLATE = """\
{%- set found = namespace(text='', system=SYSTEM) -%}
{%- set turns = messages -%}
{%- if messages and messages[0]['role'] | lower == 'system' -%}
  {%- set turns = messages[1:] -%}
  {%- if messages[0]['content'] is string -%}
    {%- set found.system = messages[0]['content'] | trim -%}
  {%- else -%}
    {%- set found.system = messages[0]['content'] | map(attribute='text') | join | trim -%}
  {%- endif -%}
{%- endif -%}
{%- if found.system -%}{%- set found.text = found.system + '\\n\\n' -%}{%- endif -%}
{%- for message in turns -%}
  {%- set said = namespace(text='') -%}
  {%- if message['content'] is string -%}
    {%- set said.text = message['content'] -%}
  {%- else -%}
    {%- for part in message['content'] -%}
      {%- if part['type'] == 'text' -%}
        {%- set said.text = said.text + part['text'] -%}
      {%- else -%}
        {%- set said.text = said.text + 'IMAGE_TAG\\n' -%}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
  {%- set content = said.text | trim -%}
  {%- set user = message['role'] | lower in ['user', 'human', '<|user|>'] -%}
  {%- if not user and message['role'] | lower not in ['assistant', '<|assistant|>'] -%}
    {{- raise_exception('expected the roles user, assistant, and system at the start') -}}
  {%- elif user != (loop.index0 % 2 == 0) -%}
    {{- raise_exception('user and assistant must take turns, the user first') -}}
  {%- endif -%}
  {%- if user -%}
    {%- set found.text = found.text + 'USER: ' + content + '\\n\\n' -%}
  {%- elif content -%}
    {%- set found.text = found.text + 'ASSISTANT: ' + content + eos_token -%}
  {%- else -%}
    {%- set found.text = found.text + 'ASSISTANT:' -%}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{%- set found.text = found.text + 'ASSISTANT:' -%}{%- endif -%}
{{- found.text | trim -}}
"""


@dataclass(frozen=True)
class TextSettings:
    """Settings that turn conversations into text, stored in `processor_config.json`.

    Attributes:
        num_image_tokens: understanding tokens of one picture.
        sft_format: name of the chat template, a key of `ROLE_WORDS`.
        system_prompt: system prompt of understanding conversations that have none of their own.
        image_tag: placeholder of one picture in the text.
        image_start_tag: token before a picture's tokens, and the last token of a generation prompt.
        image_end_tag: token after a picture's tokens.
    """

    num_image_tokens: Annotated[int, Interval(ge=1, le=2**20)]
    sft_format: str = "deepseek_old"
    system_prompt: str = SYSTEM_PROMPT
    image_tag: Tag = "<image_placeholder>"
    image_start_tag: Tag = "<begin_of_image>"
    image_end_tag: Tag = "<end_of_image>"

    def __post_init__(self) -> None:
        if self.sft_format not in ROLE_WORDS:
            raise ValueError(f"sft_format is {quoted(self.sft_format)}; known templates are {', '.join(ROLE_WORDS)}")


def without_tags(settings: TextSettings, text: str) -> str:
    """Remove the tags of pictures from a text that a model wrote, so that it can be part of a prompt."""
    for tag in (settings.image_tag, settings.image_start_tag, settings.image_end_tag):
        text = text.replace(tag, "")
    return text


def chat_template(sft_format: str, system_prompt: str, image_tag: str) -> str:
    """Return the chat template of a checkpoint in Jinja.

    Args:
        sft_format: a key of `ROLE_WORDS`.
        system_prompt: system prompt of conversations that have none; a conversation turns it off with an empty one.
        image_tag: placeholder of one picture in the text.
    """
    user, assistant = ROLE_WORDS[sft_format]
    system = "'" + system_prompt.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
    text = TEMPLATE.replace("SYSTEM", system).replace("IMAGE_TAG", image_tag)
    return text.replace("'USER: '", f"'{user}: '").replace("'ASSISTANT:", f"'{assistant}:")


def system_prompt_of(template: str) -> str | None:
    """Return the system prompt that `chat_template` put into a template; None for other templates."""
    found = re.search(r"namespace\(text='', system=('(?:[^'\\]|\\.)*')\)", template)
    return None if found is None else str(ast.literal_eval(found[1]))
