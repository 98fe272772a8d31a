// Generate: pictures of a prompt, with one or two sets of settings.

import { anySeed, busy, model, taken } from "./api.js";
import { open as edit } from "./edit.js";
import { generate } from "./gallery.js";

const section = document.querySelector("#generate");
const form = section.querySelector("form");
const gallery = section.querySelector(".gallery");

form.elements.compare.addEventListener("change", () => {
  section.querySelector("#other").hidden = !form.elements.compare.checked;
});

function reuse(settings) {
  for (const [name, value] of Object.entries(settings)) {
    form.elements[name].value = value;
    form.elements[name].dispatchEvent(new Event("input"));
  }
  form.elements.prompt.focus();
}

function one(settings, signal) {
  const { prompt, seed, steps, guidance } = settings;
  const own = taken({ num_inference_steps: steps, guidance_scale: guidance });
  const body = { model: model(), prompt, seed, ...own, stream: true, partial_images: 3 };
  const many = "num_inference_steps" in own ? ` · ${steps} steps` : "";
  const caption = `${prompt} · seed ${seed}${many} · guidance ${guidance}`;
  const actions = [["Reuse settings", () => reuse(settings)], ["Edit", edit]];
  return generate(gallery, "../v1/images/generations", body, caption, actions, signal);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const { prompt, steps, guidance, otherSteps, otherGuidance, compare, count, seed } = form.elements;
  const first = seed.value === "" ? anySeed() : Number(seed.value);
  const asked = [];
  for (let number = 0; number < Number(count.value); number++) {
    const same = { prompt: prompt.value, seed: (first + number) % 2 ** 32 };
    if (compare.checked) {
      asked.push({ ...same, steps: Number(otherSteps.value), guidance: Number(otherGuidance.value) });
    }
    asked.push({ ...same, steps: Number(steps.value), guidance: Number(guidance.value) });
  }
  busy(form, async (signal) => {
    const results = await Promise.allSettled(asked.map((settings) => one(settings, signal)));
    const failed = results.find((result) => result.status === "rejected");
    if (failed) throw failed.reason;
  });
});
