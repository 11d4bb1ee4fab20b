// Keys of the search pages, and ranges that say what they select while they move. The pages work without this.
"use strict";

const images = document.getElementById("images");
const isTyping = (element) => element.matches("textarea, select, [contenteditable], input:not([type=checkbox], [type=radio])");

// How many images are in the row of the first one: what an arrow up or down moves by.
function columns(links) {
  const top = links[0].getBoundingClientRect().top;
  const next = links.findIndex((link) => link.getBoundingClientRect().top > top + 1);
  return next < 0 ? links.length : next;
}

function moveTo(key) {
  const links = images ? [...images.querySelectorAll(".thumb")] : [];
  if (!links.length) return false;
  const card = document.activeElement.closest(".card");
  const at = card ? links.indexOf(card.querySelector(".thumb")) : -1;
  const isSideways = key === "ArrowLeft" || key === "ArrowRight";
  if (at < 0 && (!isSideways || document.activeElement !== document.body)) return false;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(links), ArrowDown: columns(links) }[key];
  const target = links[at < 0 ? (key === "ArrowRight" ? 0 : links.length - 1) : at + step];
  if (target) target.focus();
  return Boolean(target);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const box = document.getElementById("q");
  if (event.key === "Escape") {
    const open = document.activeElement.closest("details[open]");
    if (open && !open.matches(".filters *")) {
      open.open = false;
      open.querySelector("summary").focus();
    } else if (document.activeElement !== document.body) {
      document.activeElement.blur();
    }
    return;
  }
  if (isTyping(document.activeElement)) return;
  if (event.key === "/" && box) {
    event.preventDefault();
    box.focus();
    box.select();
  } else if (event.key.startsWith("Arrow") && moveTo(event.key)) {
    event.preventDefault();
  }
});

for (const range of document.querySelectorAll("[data-range]")) {
  const [from, to] = range.querySelectorAll('input[type="range"]');
  const said = range.querySelector(".ends-said");
  const bars = [...range.querySelectorAll("rect")];
  const show = (moved) => {
    if (Number(from.value) > Number(to.value)) {
      if (moved === from) to.value = from.value;
      else from.value = to.value;
    }
    const [low, high] = [Number(from.value), Number(to.value)];
    let count = 0;
    for (const bar of bars) {
      const isInside = low <= Number(bar.dataset.percent) && Number(bar.dataset.percent) <= high;
      bar.setAttribute("class", isInside ? "in" : "out");
      if (isInside) count += Number(bar.dataset.count);
    }
    const images = bars.length ? ` · ${count.toLocaleString("en")}` : "";
    range.style.setProperty("--from", (low - from.min) / (100 - from.min));
    range.style.setProperty("--to", (high - from.min) / (100 - from.min));
    said.textContent = `${low}–${high} %${images}`;
    // The end that can still move lies on top when both are at the same place.
    from.classList.toggle("above", low > (Number(from.min) + 100) / 2);
  };
  for (const end of [from, to]) {
    end.addEventListener("input", () => show(end));
    end.addEventListener("pointerup", () => setTimeout(() => end.form.requestSubmit()));
  }
  range.classList.add("is-live");
  show(to);
}
