// Copies the address of a picture, and leads to its neighbours with the arrow keys. The page works without this.
"use strict";

const copy = document.getElementById("copy");
copy.textContent = "Copy link";
copy.addEventListener("click", async (event) => {
  event.preventDefault();
  const copied = document.getElementById("copied");
  try {
    await navigator.clipboard.writeText(copy.href);
    copied.textContent = "Copied.";
  } catch {
    copied.textContent = copy.href; // browsers let pages copy only over https and on this machine
  }
});

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest("input, textarea, select")) return;
  const rel = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
  const link = rel && document.querySelector(`.strip a[rel="${rel}"]`);
  if (link) location.assign(link.href);
});
