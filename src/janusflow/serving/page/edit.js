// Edit: a picture to start from, and a brush over what is to be generated anew.

import { anySeed, busy, model, show, taken } from "./api.js";
import { generate } from "./gallery.js";

const section = document.querySelector("#edit");
const form = section.querySelector("form");
const gallery = section.querySelector(".gallery");
const canvas = section.querySelector("canvas");
const shown = canvas.getContext("2d");
const mask = document.createElement("canvas");
const NAMES = { num_inference_steps: "steps", strength: "strength", image_guidance_scale: "freedom" };
let picture = null;
let brushed = false;

function paint() {
  shown.clearRect(0, 0, canvas.width, canvas.height);
  if (picture) shown.drawImage(picture, 0, 0);
  shown.globalAlpha = 0.6;
  shown.drawImage(mask, 0, 0);
  shown.globalAlpha = 1;
}

// How far from the picture the result goes by default: all the way where it is generated anew.
function suggest(strength) {
  form.elements.strength.value = strength;
  form.elements.strength.dispatchEvent(new Event("input"));
}

function clear() {
  mask.getContext("2d").clearRect(0, 0, mask.width, mask.height);
  if (brushed) suggest(0.6);
  brushed = false;
  paint();
}

export async function open(source) {
  const image = new Image();
  image.src = source;
  try {
    await image.decode();
  } catch {
    show(new Error("This file is not a picture that the browser can show."));
    return;
  }
  picture = image;
  [canvas.width, canvas.height] = [mask.width, mask.height] = [image.naturalWidth, image.naturalHeight];
  clear();
  document.querySelector("#tab-edit").click();
}

form.elements.picture.addEventListener("change", () => {
  const file = form.elements.picture.files[0];
  if (file) open(URL.createObjectURL(file));
});
form.elements.clear.addEventListener("click", clear);

function brush(event) {
  if (!picture || event.buttons !== 1 || !("mask" in taken({ mask }))) return;
  const scale = canvas.width / canvas.clientWidth;
  const context = mask.getContext("2d");
  context.fillStyle = "magenta";
  context.beginPath();
  context.arc(event.offsetX * scale, event.offsetY * scale, (Number(form.elements.brush.value) / 2) * scale, 0, 7);
  context.fill();
  if (!brushed) suggest(1);
  brushed = true;
  paint();
}
canvas.addEventListener("pointerdown", brush);
canvas.addEventListener("pointermove", brush);

const blob = (source) => new Promise((resolve) => source.toBlob(resolve, "image/png"));

// The brush's canvas turned around: transparent where it was used.
function transparentWhereBrushed() {
  const made = document.createElement("canvas");
  [made.width, made.height] = [mask.width, mask.height];
  const context = made.getContext("2d");
  context.fillRect(0, 0, made.width, made.height);
  context.globalCompositeOperation = "destination-out";
  context.drawImage(mask, 0, 0);
  return blob(made);
}

function chosen() {
  const { strength, steps, freedom } = form.elements;
  return taken({
    num_inference_steps: steps.value, strength: strength.value, image_guidance_scale: freedom.value,
  });
}

async function body(seed) {
  const plain = document.createElement("canvas");
  [plain.width, plain.height] = [canvas.width, canvas.height];
  plain.getContext("2d").drawImage(picture, 0, 0);
  const made = new FormData();
  made.set("image", await blob(plain), "picture.png");
  if (brushed && "mask" in taken({ mask })) made.set("mask", await transparentWhereBrushed(), "mask.png");
  const fields = { model: model(), prompt: form.elements.prompt.value, seed, ...chosen() };
  for (const [name, value] of Object.entries({ ...fields, stream: true, partial_images: 3 })) made.set(name, value);
  return made;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!picture) {
    show(new Error("Choose a picture first."));
    return;
  }
  const { prompt, seed } = form.elements;
  const number = seed.value === "" ? anySeed() : Number(seed.value);
  const said = Object.entries(chosen()).map(([name, value]) => `${NAMES[name]} ${value}`);
  const caption = [prompt.value, `seed ${number}`, ...said].join(" · ");
  busy(form, async (signal) =>
    generate(gallery, "../v1/images/edits", await body(number), caption, [["Edit", open]], signal),
  );
});
