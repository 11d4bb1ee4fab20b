// Says how far an export is, below its form. Without this, a link leads to a page that says the same.
"use strict";

const line = document.getElementById("export-progress");
let isAsking = false;

async function follow(before) {
  const bar = document.createElement("progress");
  const said = document.createElement("span");
  bar.setAttribute("aria-label", "Images sent");
  said.setAttribute("role", "status");
  line.replaceChildren(bar, " ", said);
  // A refusal, such as of a second export at once, is a page of its own: this one is gone then.
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const answer = await fetch(line.dataset.address, { headers: { Accept: "application/json" } }).catch(() => null);
    if (!answer?.ok) continue;
    const progress = await answer.json();
    if (progress.number === before) continue;
    bar.max = progress.images;
    if (progress.sent) bar.value = progress.sent;
    said.textContent = progress.text;
    if (progress.state !== "sending") {
      bar.hidden = true;
      return progress.number;
    }
  }
}

document.addEventListener("submit", async () => {
  if (isAsking) return;
  isAsking = true;
  line.dataset.last = await follow(Number(line.dataset.last));
  isAsking = false;
});
