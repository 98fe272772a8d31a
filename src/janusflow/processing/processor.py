"""Turn text and pictures into the network's inputs: ids, masks and normalized pixels.

`messages.py` reads conversations, `chat_template.py` turns them into text, `batching.py` pads the rows, `pixels.py`
prepares the pictures. The next step is `model/janusflow.py`, called by `engine/understanding.py` and by the pipelines.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoProcessor, BatchFeature, PreTrainedTokenizerFast, ProcessorMixin

from janusflow.arguments import given, quoted, suggestion, whole_text
from janusflow.config import JanusFlowConfig
from janusflow.folders import find_folder
from janusflow.processing.batching import Batching, UnderstandingInputs, pictures_of
from janusflow.processing.chat_template import TextSettings, chat_template
from janusflow.processing.folder import read_settings, read_tokenizer
from janusflow.processing.images import ImageSource, load_image, load_images
from janusflow.processing.messages import Message, ends_begun, flatten, read_turns
from janusflow.processing.pixels import ImageSettings, to_pixels

TEMPLATE_OPTIONS = ("tools", "documents", "return_assistant_tokens_mask", "load_audio_from_video")  # none is supported
ELSEWHERE = ("revision", "subfolder", "cache_dir")  # options of a hub id that select files which are not read here


class JanusFlowProcessor(ProcessorMixin):
    """Tokenizer, chat template and picture preprocessing of one checkpoint.

    Args:
        tokenizer: tokenizer of the checkpoint.
        text: how conversations become text.
        image: how pictures become pixels.

    Example:
        >>> from PIL import Image
        >>> from janusflow import JanusFlowProcessor
        >>> processor = JanusFlowProcessor.from_pretrained("tiny")
        >>> inputs = processor("<image_placeholder> what is it?", images=Image.new("RGB", (64, 64)))
        >>> {name: tuple(value.shape) for name, value in inputs.items()}
        {'input_ids': (1, 73), 'attention_mask': (1, 73), 'pixel_values': (1, 3, 64, 64)}
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, text: TextSettings, image: ImageSettings) -> None:
        self.tokenizer, self.text, self.image = tokenizer, text, image
        self.image_id = self._id(text.image_tag)
        self.image_start_id = self._id(text.image_start_tag)
        self.image_end_id = self._id(text.image_end_tag)
        tokenizer.chat_template = chat_template(text.sft_format, text.system_prompt, text.image_tag)

    # --- files ------------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, num_image_tokens: int | None = None, sft_format: str | None = None, **hub: Any
    ) -> JanusFlowProcessor:
        """Read the tokenizer and the settings of a checkpoint folder in any layout; see `processing/folder.py`.

        Args:
            folder: folder of the checkpoint, or a hub id.
            num_image_tokens: the network's number of tokens per picture, for layouts that do not store it here.
            sft_format: chat template to use instead of the folder's ("deepseek_old" if the layout names none).
            **hub: arguments that transformers' Auto classes pass.

        Raises:
            ValueError: if a file is missing or damaged, a hub id comes with a revision, subfolder or cache_dir, or an
                argument's name is misspelled.
        """
        asked = [f"{name}={hub[name]!r}" for name in ELSEWHERE if hub.get(name) not in (None, "", "main")]
        if asked and not Path(folder).expanduser().is_dir():
            raise ValueError(
                f"{', '.join(asked)} cannot be given with a hub id; download it with huggingface_hub.snapshot_download "
                "and give the folder"
            )
        for name in hub:
            if near := suggestion(name, ("num_image_tokens", "sft_format")):
                raise ValueError(f"there is no argument {quoted(name)}{near}")
        folder = find_folder(folder)
        text, image = read_settings(folder, num_image_tokens=num_image_tokens, sft_format=sft_format)
        try:
            return cls(read_tokenizer(folder), text, image)
        except ValueError as error:
            if str(folder) in str(error):
                raise
            raise ValueError(f"{folder}: {error}") from error

    def save_pretrained(self, folder: str | Path, *, max_shard_size: Any = None) -> None:
        """Write the files that `from_pretrained` reads.

        Args:
            folder: created if it does not exist.
            max_shard_size: has no effect, because a processor has no weights; `push_to_hub` passes it.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(folder)
        settings = {"processor_config.json": asdict(self.text), "preprocessor_config.json": asdict(self.image)}
        for name, values in settings.items():
            content = {**values, "processor_class": type(self).__name__}
            (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    # --- as transformers' processors are called ---------------------------------------------------------------------

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        images: ImageSource | Sequence[Any] | None = None,
        *,
        return_tensors: str = "pt",
        **options: Any,
    ) -> BatchFeature:
        """Turn rendered texts and their pictures into the network's inputs, like other processors of transformers.

        Args:
            text: one or several texts from `apply_chat_template`, with an `<image_placeholder>` for each picture; None
                for pictures only.
            images: pictures of all texts in reading order, or a list with one list per text.
            return_tensors: only "pt".
            **options: padding, padding_side, truncation, max_length, pad_to_multiple_of and add_special_tokens; see
                `janusflow.processing.batching.Batching`.

        Returns:
            input_ids and attention_mask, (B, T) padded on the left, and with pictures pixel_values, (N, 3, S, S).

        Raises:
            ValueError: if pictures and placeholders differ in number, or for an option that is not allowed.
        """
        if return_tensors != "pt":
            raise ValueError(f"return_tensors is {quoted(return_tensors)}; only PyTorch tensors ('pt') are supported")
        batching, content = Batching.read(options), {}
        if text is None:
            pictures = load_images(images)
            if not pictures:
                raise ValueError("neither text nor pictures were given")
        else:
            texts = [text] if isinstance(text, str) else list(text)
            if not texts or not all(isinstance(one, str) for one in texts):
                raise ValueError("text must be a string or a list of at least one string")
            texts = [whole_text("text", one) for one in texts]
            ids = [self.tokenizer.encode(one, add_special_tokens=batching.add_special_tokens) for one in texts]
            placed = [row.count(self.image_id) for row in ids]
            pictures = pictures_of(images, placed, self.text.image_tag)
            rows = [self.lay_pictures(row, count) for row, count in zip(ids, placed, strict=True)]
            content["input_ids"], content["attention_mask"] = self._collate(rows, batching)
        if pictures:
            content["pixel_values"] = torch.stack([to_pixels(picture, self.image) for picture in pictures])
        return BatchFeature(content)

    def apply_chat_template(
        self,
        conversation: Sequence[Message] | Sequence[Sequence[Message]],
        chat_template: str | None = None,
        *,
        add_generation_prompt: bool = False,
        continue_final_message: bool | str = False,
        tokenize: bool = False,
        return_dict: bool = True,
        processor_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Apply the tokenizer's template to one conversation or several.

        Args:
            conversation: messages in transformers' form: `content` is a string, or parts of `type` text and image.
            chat_template: Jinja template to use instead of the tokenizer's.
            add_generation_prompt: whether to open the assistant's turn.
            continue_final_message: whether the last message stays open, so that the model continues it.
            tokenize: False returns strings; True returns the network's inputs, including the pictures of the parts.
            return_dict: with `tokenize`, False returns only the input ids.
            processor_kwargs, **options: arguments of `__call__`, used with `tokenize`.

        Returns:
            A string or a list of strings; with `tokenize`, the result of `__call__`.

        Raises:
            ValueError: for unknown arguments, or arguments that do not go together.
        """
        options |= processor_kwargs or {}
        unset = [name for name in TEMPLATE_OPTIONS if not options.get(name)]
        options = {name: value for name, value in options.items() if value is not None and name not in unset}
        Batching.read({name: value for name, value in options.items() if name != "return_tensors"})
        several = bool(conversation) and not isinstance(conversation[0], Mapping)
        talks: list[Any] = list(conversation) if several else [conversation]
        texts = [
            self.tokenizer.apply_chat_template(
                talk,
                chat_template=chat_template,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                tokenize=False,
            )
            for talk in talks
        ]
        if not tokenize:
            return texts if several else texts[0]
        plain = [[flatten(message, self.text.image_tag) for message in talk] for talk in talks]
        pictures = [[image for message in talk for image in message["images"]] for talk in plain]
        inputs = self(texts, pictures, **options)
        return inputs if return_dict else inputs["input_ids"]

    @property
    def chat_template(self) -> str:
        """The tokenizer's Jinja template."""
        return str(self.tokenizer.chat_template)

    @property
    def image_processor(self) -> JanusFlowProcessor:
        """This object, which also prepares pictures; transformers' pipelines batch only with an image processor."""
        return self

    @property
    def model_input_names(self) -> list[str]:
        """Names of the tensors that `__call__` returns."""
        return ["input_ids", "attention_mask", "pixel_values"]

    def to_dict(self) -> dict[str, Any]:
        """Return the settings of text and pictures, for printing."""
        return {**asdict(self.text), **asdict(self.image), "processor_class": type(self).__name__}

    # --- understanding ----------------------------------------------------------------------------------------------

    def render(self, messages: Sequence[Message], *, continue_final_message: bool = False) -> str:
        """Turn a conversation into the text that the tokenizer reads.

        The text has the system prompt, a blank line, then `Role: content` turns. A blank line closes a user's turn,
        the end-of-sentence token an assistant's; an empty last turn of the assistant is left open for the answer.

        Args:
            messages: see `janusflow.processing.messages.read_turns`.
            continue_final_message: whether a last message of the assistant stays open for the model to continue.

        Example:
            >>> processor = JanusFlowProcessor.from_pretrained("tiny")
            >>> processor.render([{"role": "user", "content": "what is it?"}])
            'User: what is it?\\n\\nAssistant:'
        """
        system, turns = read_turns(messages, self.text.image_tag, system=self.text.system_prompt)
        plain = [{"role": ("user", "assistant")[role], "content": content} for role, content in turns]
        plain = [{"role": "system", "content": system}, *plain]
        begun = continue_final_message and ends_begun(plain)
        return str(self.tokenizer.apply_chat_template(plain, tokenize=False, continue_final_message=begun))

    def encode_conversations(
        self, conversations: Sequence[Sequence[Message]], *, continue_final_message: bool = False
    ) -> UnderstandingInputs:
        """Turn conversations of any lengths, with their pictures, into one batch. Each picture is loaded once.

        Args:
            conversations: each a list of messages, in one of the forms of `janusflow.processing.messages.flatten`.
            continue_final_message: see `render`.

        Raises:
            ValueError: if a conversation is malformed or its pictures and placeholders differ in number.
        """
        plain = [[flatten(message, self.text.image_tag) for message in messages] for messages in conversations]
        texts, rows, pictures = [], [], []
        for messages in plain:
            texts.append(whole_text("a message", self.render(messages, continue_final_message=continue_final_message)))
            images = [image for message in messages for image in load_images(message["images"])]
            rows.append(self.lay_pictures(self.tokenizer.encode(texts[-1]), len(images)))
            pictures += images
        padded, mask = self._collate(rows, Batching())
        pixels = torch.stack([to_pixels(image, self.image) for image in pictures]) if pictures else None
        begun = [continue_final_message and ends_begun(messages) for messages in plain]
        return UnderstandingInputs(padded, mask, pixels, texts, begun)

    def question(self, question: str, images: int) -> str:
        """Put one placeholder and a newline per picture before a question, unless it contains placeholders itself.

        Raises:
            ValueError: if it contains a different number of placeholders.

        Example:
            >>> JanusFlowProcessor.from_pretrained("tiny").question("what is it?", images=1)
            '<image_placeholder>\\nwhat is it?'
        """
        placed = question.count(self.text.image_tag)
        if placed and placed != images:
            raise ValueError(f"the question has {placed} {self.text.image_tag}, but {given(images, 'picture')}")
        return question if placed else f"{self.text.image_tag}\n" * images + question

    def preprocess(self, source: ImageSource) -> Tensor:
        """Prepare a picture for f_enc, (3, S, S) float32; see `janusflow.processing.pixels.to_pixels`."""
        return to_pixels(load_image(source), self.image)

    # --- generation -------------------------------------------------------------------------------------------------

    def render_prompt(self, prompt: str) -> str:
        """Return the text of a generation prompt: one user turn without a system prompt, then `<begin_of_image>`."""
        messages = [{"role": "system", "content": ""}, {"role": "user", "content": prompt}]
        return self.render(messages) + self.text.image_start_tag

    def encode_prompts(
        self, prompts: Sequence[str], *, side: str = "right", keep_last: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Turn generation prompts into one batch.

        Args:
            prompts: prompts of any length.
            side: side on which they are padded, "left" or "right".
            keep_last: whether to keep the last token, `<begin_of_image>`, which Janus needs; in JanusFlow the time
                token takes its place.

        Returns:
            Ids and mask, both (B, P) int64.

        Raises:
            ValueError: for an empty prompt.
        """
        rows = []
        for prompt in prompts:
            if not isinstance(prompt, str) or not prompt.strip():
                raise ValueError(f"prompt is {quoted(prompt)}; expected a text that is not empty")
            ids = self.tokenizer.encode(self.render_prompt(whole_text("prompt", prompt)))
            rows.append(ids if keep_last else ids[:-1])
        return self._collate(rows, Batching(padding_side=side))

    # --- parts ------------------------------------------------------------------------------------------------------

    def _id(self, token: str) -> int:
        index = self.tokenizer.convert_tokens_to_ids(token)
        if index is None or self.tokenizer.convert_ids_to_tokens(index) != token:
            raise ValueError(f"the tokenizer has no token {quoted(token)}, which this model family needs")
        return int(index)

    def lay_pictures(self, ids: list[int], pictures: int) -> list[int]:
        """Replace each placeholder with the tokens of a picture.

        Raises:
            ValueError: if there are more or fewer placeholders than pictures.
        """
        placeholders = ids.count(self.image_id)
        if placeholders != pictures:
            raise ValueError(
                f"the conversation has {placeholders} {self.text.image_tag}, but {given(pictures, 'picture')}"
            )
        tokens = [self.image_start_id, *[self.image_id] * self.text.num_image_tokens, self.image_end_id]
        return [new for old in ids for new in (tokens if old == self.image_id else (old,))]

    def _collate(self, rows: Sequence[list[int]], batching: Batching) -> tuple[Tensor, Tensor]:
        return batching.collate(rows, pad=self.tokenizer.pad_token_id, image=self.image_id)


AutoProcessor.register(JanusFlowConfig, JanusFlowProcessor, exist_ok=True)  # replaces that of `model/auto.py`
