// The page: tabs, the list of models, and the values next to sliders.

import { listModels, show } from "./api.js";
import "./chat.js";
import "./edit.js";
import "./generate.js";

const tabs = [...document.querySelectorAll("[role=tab]")];

function choose(chosen) {
  for (const tab of tabs) {
    tab.setAttribute("aria-selected", tab === chosen);
    tab.tabIndex = tab === chosen ? 0 : -1;
    document.getElementById(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
  }
}

for (const [number, tab] of tabs.entries()) {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = tabs[(number + step + tabs.length) % tabs.length];
    choose(next);
    next.focus();
  });
}
choose(tabs[0]);

for (const slider of document.querySelectorAll("input[type=range]")) {
  const value = slider.parentElement.querySelector("output");
  const update = () => (value.textContent = slider.value);
  slider.addEventListener("input", update);
  update();
}

try {
  await listModels();
} catch (problem) {
  show(problem);
}
