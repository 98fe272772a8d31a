"""The family's chat templates as Jinja: `apply_chat_template` then gives the strings that the official code makes."""

from __future__ import annotations

import ast
import re

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
  {%- if message['role'] | lower in ['user', 'human', '<|user|>'] -%}
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


def chat_template(sft_format: str, system_prompt: str, image_tag: str) -> str:
    """The template of a checkpoint in Jinja.

    Args:
        sft_format: a key of `ROLE_WORDS`.
        system_prompt: of conversations that bring none; an empty one in a conversation means none at all.
        image_tag: stands for a picture in the text.
    """
    user, assistant = ROLE_WORDS[sft_format]
    quoted = "'" + system_prompt.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
    text = TEMPLATE.replace("SYSTEM", quoted).replace("IMAGE_TAG", image_tag)
    return text.replace("'USER: '", f"'{user}: '").replace("'ASSISTANT:", f"'{assistant}:")


def system_prompt_of(template: str) -> str | None:
    """The system prompt that `chat_template` put into a template; None for a template of another origin."""
    found = re.search(r"namespace\(text='', system=('(?:[^'\\]|\\.)*')\)", template)
    return None if found is None else str(ast.literal_eval(found[1]))
