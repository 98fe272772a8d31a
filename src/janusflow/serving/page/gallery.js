// Pictures that are being generated, and what can be done with them.

import { address, events } from "./api.js";

function button(text, action) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.addEventListener("click", action);
  return made;
}

// Adds a picture to a gallery, shows its previews, and at its end the buttons.
export async function generate(gallery, path, body, caption, actions, signal) {
  const figure = document.createElement("figure");
  const image = document.createElement("img");
  const words = document.createElement("figcaption");
  image.alt = caption;
  words.textContent = caption;
  figure.append(image, words);
  gallery.prepend(figure);
  try {
    for await (const event of events(path, body, signal)) {
      image.src = address(event.b64_json);
      if (!event.type.endsWith(".completed")) continue;
      const buttons = document.createElement("div");
      buttons.className = "buttons";
      for (const [text, action] of actions) buttons.append(button(text, () => action(image.src)));
      words.append(buttons);
      return image.src;
    }
  } catch (problem) {
    figure.remove();
    throw problem;
  }
}
