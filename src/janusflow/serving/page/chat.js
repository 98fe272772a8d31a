// Chat: questions about pictures, answered word by word; and pictures generated on the way.

import { anySeed, address, busy, events, model } from "./api.js";

const section = document.querySelector("#chat");
const form = section.querySelector("form");
const talk = section.querySelector(".talk");
const shown = section.querySelector(".shown");
let messages = [];
let pictures = [];

function picture(source) {
  const image = document.createElement("img");
  image.src = source;
  image.alt = "a picture in this conversation";
  return image;
}

function attach(source) {
  pictures.push(source);
  shown.append(picture(source));
}

function say(role, text, images = []) {
  const made = document.createElement("div");
  const words = document.createElement("span");
  made.className = `message ${role}`;
  words.textContent = text;
  made.append(...images.map(picture), words);
  talk.append(made);
  made.scrollIntoView({ block: "nearest" });
  return words;
}

function read(files) {
  for (const file of files) {
    const reader = new FileReader();
    reader.addEventListener("load", () => attach(reader.result));
    if (file.type.startsWith("image/")) reader.readAsDataURL(file);
  }
}

form.elements.pictures.addEventListener("change", () => {
  read(form.elements.pictures.files);
  form.elements.pictures.value = "";
});
section.addEventListener("dragover", (event) => event.preventDefault());
section.addEventListener("drop", (event) => {
  event.preventDefault();
  read(event.dataTransfer.files);
});

async function answer(asked, undo, signal) {
  const words = say("assistant", "");
  const body = { model: model(), messages: [...messages, asked], stream: true };
  try {
    for await (const chunk of events("../v1/chat/completions", body, signal)) {
      words.textContent += chunk.choices[0]?.delta.content ?? "";
    }
  } finally {
    if (words.textContent) messages = [...messages, asked, { role: "assistant", content: words.textContent }];
    else {
      words.parentElement.remove();
      undo();
    }
  }
}

function send() {
  const text = form.elements.message.value.trim();
  if (!text) return;
  const parts = pictures.map((url) => ({ type: "image_url", image_url: { url } }));
  const sent = pictures;
  const message = say("user", text, sent).parentElement;
  const undo = () => {
    message.remove();
    pictures = [...sent, ...pictures];
    shown.replaceChildren(...pictures.map(picture));
    form.elements.message.value ||= text;
  };
  pictures = [];
  shown.replaceChildren();
  form.elements.message.value = "";
  const asked = { role: "user", content: [...parts, { type: "text", text }] };
  busy(form, (signal) => answer(asked, undo, signal));
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
form.elements.message.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    if (!form.querySelector("[type=submit]").disabled) send();
  }
});
form.elements.draw.addEventListener("click", () => {
  const prompt = form.elements.message.value.trim();
  if (!prompt) return;
  const body = { model: model(), prompt, seed: anySeed(), stream: true, partial_images: 3 };
  busy(form, async (signal) => {
    const image = picture("data:,");
    shown.append(image);
    try {
      for await (const event of events("../v1/images/generations", body, signal)) image.src = address(event.b64_json);
      pictures.push(image.src);
      form.elements.message.value = "";
    } catch (problem) {
      image.remove();
      throw problem;
    }
  });
});
form.elements.restart.addEventListener("click", () => {
  messages = [];
  pictures = [];
  talk.replaceChildren();
  shown.replaceChildren();
});
