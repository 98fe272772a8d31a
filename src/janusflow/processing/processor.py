"""Text and pictures in, what the network reads out: ids, masks and normalised pixels.

The strings are those of the family's chat template; the ids those of the checkpoint's own `tokenizer.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoProcessor, BatchFeature, PreTrainedTokenizerFast, ProcessorMixin

from janusflow.arguments import quoted, shortened, whole_text
from janusflow.config import JanusFlowConfig
from janusflow.files import checked
from janusflow.folders import find_folder, read_json
from janusflow.offline import first_line
from janusflow.processing.batching import Batching, pictures_of
from janusflow.processing.chat_template import chat_template
from janusflow.processing.images import ImageSource, load_image, load_images
from janusflow.processing.messages import Message, ends_begun, flatten, read_turns
from janusflow.processing.settings import ImageSettings, Tag, TextSettings
from janusflow.processing.transformers_layout import is_transformers_processor, read_transformers_processor

PADDLE_IMAGES = "image_preprocessor_config.json"
PAD_TOKEN = "<｜▁pad▁｜>"
TEMPLATE_OPTIONS = ("tools", "documents", "return_assistant_tokens_mask", "load_audio_from_video")  # none is supported
ELSEWHERE = ("revision", "subfolder", "cache_dir")  # of a hub id: would read other files than those that are read here


@dataclass
class UnderstandingInputs:
    """A batch of B conversations, padded on the left to T tokens.

    Attributes:
        input_ids: (B, T) int64; `<image_placeholder>` at each understanding token.
        attention_mask: (B, T) int64, 1 at tokens.
        pixel_values: (N, 3, S, S) float32, the pictures of all conversations in reading order; None if there are none.
        text: the prompts as strings, before pictures were laid in.
        begun: of each conversation, whether its prompt ends within a message of the assistant.
    """

    input_ids: Tensor
    attention_mask: Tensor
    pixel_values: Tensor | None
    text: list[str] = field(default_factory=list)
    begun: list[bool] = field(default_factory=list)


class JanusFlowProcessor(ProcessorMixin):
    """Tokenizer, template and picture preprocessing of one checkpoint.

    Args:
        tokenizer: of the checkpoint.
        text: see `TextSettings`.
        image: see `ImageSettings`.
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
        """Reads the tokenizer and the two JSON files of a checkpoint folder, official or ours.

        Args:
            folder: of the checkpoint, or a hub id.
            num_image_tokens: of the network, for layouts that do not say it here.
            sft_format: another chat template than the folder's ("deepseek_old" where the layout names none).
            **hub: what transformers' Auto classes pass on.

        Raises:
            ValueError: if one is missing or damaged, or a hub id comes with a revision, subfolder or cache_dir.
        """
        asked = [f"{name}={hub[name]!r}" for name in ELSEWHERE if hub.get(name) not in (None, "", "main")]
        if asked and not Path(folder).expanduser().is_dir():
            raise ValueError(
                f"{', '.join(asked)}: not for a hub id here; fetch it with huggingface_hub.snapshot_download"
            )
        folder = find_folder(folder)
        if is_transformers_processor(folder):
            (text, text_file), (image, image_file) = read_transformers_processor(folder)
        elif (folder / PADDLE_IMAGES).is_file() and not (folder / "processor_config.json").is_file():
            text, text_file, image_file = {}, folder / PADDLE_IMAGES, folder / PADDLE_IMAGES
            image = read_json(image_file)
        else:
            text_file, image_file = folder / "processor_config.json", folder / "preprocessor_config.json"
            text, image = read_json(text_file), read_json(image_file)
        text = {"num_image_tokens": num_image_tokens, **_known(TextSettings, text)}
        if sft_format is not None:
            text["sft_format"] = TextSettings(1, sft_format=sft_format).sft_format  # refuses one that is unknown
        text_settings = checked(TextSettings, text, text_file)
        if num_image_tokens not in (None, text_settings.num_image_tokens):
            raise ValueError(
                f"{text_file} is damaged: num_image_tokens is {text_settings.num_image_tokens}; the network makes "
                f"{num_image_tokens} tokens of a picture"
            )
        image_settings = checked(ImageSettings, _known(ImageSettings, image), image_file)
        try:
            return cls(_tokenizer(folder), text_settings, image_settings)
        except ValueError as error:
            if str(folder) in str(error):
                raise
            raise ValueError(f"{folder}: {error}") from error

    def save_pretrained(self, folder: str | Path, *, max_shard_size: Any = None) -> None:
        """Writes what `from_pretrained` reads.

        Args:
            folder: made if it does not exist.
            max_shard_size: of weights, which a processor has none of; `push_to_hub` passes it.
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
        """Rendered texts and their pictures as the network's inputs, as `AutoProcessor`'s users expect it.

        Args:
            text: one or several, from `apply_chat_template`, with an `<image_placeholder>` for each picture; None for
                pictures only.
            images: of all texts in reading order, or a list with one list per text.
            return_tensors: "pt" only.
            **options: padding, padding_side, truncation, max_length, pad_to_multiple_of and add_special_tokens; see
                `janusflow.processing.batching.Batching`.

        Returns:
            input_ids and attention_mask, (B, T) padded on the left, and pixel_values, (N, 3, S, S), if there are any.

        Raises:
            ValueError: if pictures and placeholders differ in number, or for an option that is not allowed.
        """
        if return_tensors != "pt":
            raise ValueError(f"return_tensors is {quoted(return_tensors)}; only PyTorch tensors ('pt') are supported")
        batching, content = Batching.read(options), {}
        if text is None:
            pictures: Sequence[ImageSource] = load_images(images)
            if not pictures:
                raise ValueError("neither text nor pictures were given")
        else:
            texts = [text] if isinstance(text, str) else list(text)
            if not texts or not all(isinstance(one, str) for one in texts):
                raise ValueError("text is one string or a list of strings, at least one")
            texts = [whole_text("text", one) for one in texts]
            ids = [self.tokenizer.encode(one, add_special_tokens=batching.add_special_tokens) for one in texts]
            placed = [row.count(self.image_id) for row in ids]
            pictures = pictures_of(images, placed, self.text.image_tag)
            rows = [self.lay_pictures(row, count) for row, count in zip(ids, placed, strict=True)]
            content["input_ids"], content["attention_mask"] = self._collate(rows, batching)
        if pictures:
            content["pixel_values"] = torch.stack([self.preprocess(picture) for picture in pictures])
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
        """A conversation, or several, through the template of the tokenizer.

        Args:
            conversation: messages in transformers' form: `content` a string, or parts of `type` text and image.
            chat_template: another one, in Jinja.
            add_generation_prompt: whether the assistant's turn is opened.
            continue_final_message: whether the last message stays open, so that the model continues it.
            tokenize: False for strings; True for the network's inputs, the pictures of the parts among them.
            return_dict: with `tokenize`, False gives only the input ids.
            processor_kwargs, **options: of the call of the processor, with `tokenize`.

        Returns:
            a string or a list of them; or what a call of the processor gives.

        Raises:
            ValueError: for arguments that do not go together, or one that is unknown.
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

    def decode(self, ids: Any, **options: Any) -> str:
        """Token ids as text; options are the tokenizer's."""
        return str(self.tokenizer.decode(ids, **options))

    def batch_decode(self, ids: Any, **options: Any) -> list[str]:
        """Rows of token ids as texts; options are the tokenizer's."""
        return list(self.tokenizer.batch_decode(ids, **options))

    def post_process_image_text_to_text(
        self, ids: Any, *, skip_special_tokens: bool = True, **options: Any
    ) -> list[str]:
        """What transformers' pipeline "image-text-to-text" reads from generated ids; options are the tokenizer's."""
        return self.batch_decode(ids, skip_special_tokens=skip_special_tokens, **options)

    @property
    def chat_template(self) -> str:
        """The tokenizer's Jinja template."""
        return str(self.tokenizer.chat_template)

    @property
    def image_processor(self) -> JanusFlowProcessor:
        """This object, which prepares pictures too; transformers' pipelines batch only where there is one."""
        return self

    @property
    def model_input_names(self) -> list[str]:
        """What a call gives."""
        return ["input_ids", "attention_mask", "pixel_values"]

    def to_dict(self) -> dict[str, Any]:
        """Both settings, for printing."""
        return {**asdict(self.text), **asdict(self.image), "processor_class": type(self).__name__}

    # --- understanding ----------------------------------------------------------------------------------------------

    def render(self, messages: Sequence[Message], *, continue_final_message: bool = False) -> str:
        """A conversation as the text that the tokenizer gets.

        System prompt, blank line, then `Role: content` turns; a blank line closes a user's turn, the end-of-sentence
        token an assistant's, and an empty last turn of the assistant is left open for the answer.

        Args:
            messages: of `role` (user, assistant, or a system one at the start) and `content`. An open assistant turn
                is added if the last message is a user's.
            continue_final_message: whether a last message of the assistant stays open, so that the model continues it.
        """
        system, turns = read_turns(messages, self.text.image_tag, system=self.text.system_prompt)
        plain = [{"role": ("user", "assistant")[role], "content": content} for role, content in turns]
        plain = [{"role": "system", "content": system}, *plain]
        begun = continue_final_message and ends_begun(plain)
        return str(self.tokenizer.apply_chat_template(plain, tokenize=False, continue_final_message=begun))

    def encode_conversations(
        self, conversations: Sequence[Sequence[Message]], *, continue_final_message: bool = False
    ) -> UnderstandingInputs:
        """Conversations of any lengths, with their pictures, as one batch.

        Args:
            conversations: each a list of messages; a message's pictures stand under `images`, and one
                `<image_placeholder>` in its content for each, or both come as a list of parts in OpenAI's form.
            continue_final_message: see `render`.

        Raises:
            ValueError: if a conversation is malformed or its pictures and placeholders differ in number.
        """
        plain = [[flatten(message, self.text.image_tag) for message in messages] for messages in conversations]
        texts, rows, pictures = [], [], []
        for messages in plain:
            text = whole_text("a message", self.render(messages, continue_final_message=continue_final_message))
            images = [image for message in messages for image in load_images(message.get("images"))]
            ids = self.lay_pictures(self.tokenizer.encode(text), len(images))
            texts.append(text)
            rows.append(ids)
            pictures.extend(images)
        padded, mask = self._collate(rows, Batching())
        pixels = torch.stack([self.preprocess(image) for image in pictures]) if pictures else None
        begun = [continue_final_message and ends_begun(messages) for messages in plain]
        return UnderstandingInputs(padded, mask, pixels, texts, begun)

    def question(self, question: str, images: int) -> str:
        """A question with one placeholder and a newline per picture before it, unless it places them itself."""
        placed = question.count(self.text.image_tag)
        if placed and placed != images:
            raise ValueError(f"the question holds {placed} {self.text.image_tag}, but {images} pictures were given")
        return question if placed else f"{self.text.image_tag}\n" * images + question

    def preprocess(self, source: ImageSource) -> Tensor:
        """A picture as f_enc takes it: (3, S, S) float32.

        The long side is resized to S (bicubic, antialiased, sides truncated), the rest padded, centred, with the mean.
        """
        image, settings = load_image(source), self.image
        size, longest = settings.image_size, max(image.size)
        width, height = (max(int(side / longest * size), settings.min_size) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        square = Image.new("RGB", (max(width, height),) * 2, settings.background)
        square.paste(image, ((square.width - width) // 2, (square.height - height) // 2))
        pixels = np.asarray(square, dtype=np.float64) * settings.rescale_factor
        values = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)
        if settings.do_normalize:
            mean, std = (
                torch.tensor(value, dtype=values.dtype, device=values.device).view(3, 1, 1)
                for value in (settings.image_mean, settings.image_std)
            )
            values = (values - mean) / std
        return values.contiguous()

    # --- generation -------------------------------------------------------------------------------------------------

    def render_prompt(self, prompt: str) -> str:
        """The text of a generation prompt: one user turn, no system prompt, `<begin_of_image>`."""
        messages = [{"role": "system", "content": ""}, {"role": "user", "content": prompt}]
        return self.render(messages) + self.text.image_start_tag

    def encode_prompts(
        self, prompts: Sequence[str], *, side: str = "right", keep_last: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Generation prompts as one batch.

        Args:
            prompts: of any lengths.
            side: where they are padded, "left" or "right".
            keep_last: whether the last token, `<begin_of_image>`, stays, as Janus reads it; JanusFlow's time token
                takes its place.

        Returns:
            ids and mask, both (B, P) int64.

        Raises:
            ValueError: for an empty prompt.
        """
        rows = []
        for prompt in prompts:
            if not isinstance(prompt, str) or not prompt.strip():
                raise ValueError(f"prompt is {quoted(prompt)}; a prompt is some text")
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
        """Each placeholder replaced by the tokens of a picture.

        Raises:
            ValueError: if there are more or fewer placeholders than pictures.
        """
        placeholders = ids.count(self.image_id)
        if placeholders != pictures:
            raise ValueError(
                f"the conversation holds {placeholders} {self.text.image_tag}, but {pictures} pictures were given"
            )
        tokens = [self.image_start_id, *[self.image_id] * self.text.num_image_tokens, self.image_end_id]
        return [new for old in ids for new in (tokens if old == self.image_id else (old,))]

    def _collate(self, rows: Sequence[list[int]], batching: Batching) -> tuple[Tensor, Tensor]:
        return batching.collate(rows, pad=self.tokenizer.pad_token_id, image=self.image_id)


def _known(settings: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those values that the dataclass has, without nulls; released files hold others beside them."""
    names = {entry.name for entry in fields(settings)}
    return {key: value for key, value in values.items() if key in names and value is not None}


@dataclass(frozen=True)
class _AddedToken:
    content: Tag


@dataclass(frozen=True)
class _TokenizerConfig:
    """What is read of `tokenizer_config.json`."""

    bos_token: Tag | _AddedToken
    eos_token: Tag | _AddedToken
    pad_token: Tag | _AddedToken | None = None


def _tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """`tokenizer.json` as it is: the Llama class that released files name would change the ids in transformers 5."""
    file, config_file = folder / "tokenizer.json", folder / "tokenizer_config.json"
    config = checked(_TokenizerConfig, _known(_TokenizerConfig, read_json(config_file)), config_file)
    if not file.is_file():
        raise ValueError(f"{folder} holds no tokenizer.json")
    try:
        backend = Tokenizer.from_file(str(file))
    except Exception as error:  # the Rust side raises bare Exception
        raise ValueError(f"{file} is damaged: {shortened(first_line(error))}") from error
    bos, eos = (token if isinstance(token, str) else token.content for token in (config.bos_token, config.eos_token))
    for token in (bos, eos):
        if backend.token_to_id(token) is None:
            raise ValueError(f"{config_file} names the token {quoted(token)}, which {file.name} lacks")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        bos_token=bos,
        eos_token=eos,
        pad_token=PAD_TOKEN if backend.token_to_id(PAD_TOKEN) is not None else eos,
    )


AutoProcessor.register(JanusFlowConfig, JanusFlowProcessor, exist_ok=True)  # in the place of `model/auto.py`'s
