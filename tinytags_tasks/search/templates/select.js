// Corrections without loading the page again; Shift, or a button, to tick several images at once. The page works without
// this.
"use strict";

document.addEventListener("submit", async (event) => {
  const form = event.target;
  const card = form.closest(".card");
  if (!card || form.method !== "post") return;
  event.preventDefault();
  const fields = new URLSearchParams(new FormData(form, event.submitter));
  const message = card.querySelector(".answer") ?? card.querySelector(".words").appendChild(document.createElement("p"));
  message.className = "answer";
  message.setAttribute("role", "status");
  message.textContent = "…";
  try {
    const answer = await fetch(form.action, { method: "POST", body: fields, headers: { Accept: "application/json" } });
    const isJson = (answer.headers.get("Content-Type") ?? "").startsWith("application/json");
    const text = isJson ? await answer.json() : { message: answer.ok ? "Done." : await heading(answer) };
    message.textContent = text.message ?? text.error;
    if (answer.ok) {
      const back = fields.get("back");
      const undo = document.createElement("a");
      undo.href = `${document.documentElement.dataset.base}${back}${back.includes("?") ? "&" : "?"}said=${encodeURIComponent(text.said)}`;
      undo.textContent = "Reload to see it or undo it";
      message.append(" ", undo);
      form.closest("details").open = false;
      card.classList.add("done");
    }
  } catch {
    message.textContent = "The page does not answer: try again.";
  }
});

async function heading(answer) {
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  return page.querySelector("main p:not(.status)")?.textContent ?? `Refused (${answer.status}).`;
}

const boxes = () => [...document.querySelectorAll('input[type="checkbox"][name="picture"]')];
const said = document.getElementById("picked");
const all = document.createElement("button");
all.type = "button";
all.className = "button";

function count() {
  const chosen = boxes().filter((box) => box.checked).length;
  if (said) said.textContent = chosen ? `${chosen} ticked` : "The ticked images";
  all.textContent = chosen < boxes().length ? "Tick all on this page" : "Untick all";
}

if (said) {
  said.after(all);
  all.addEventListener("click", () => {
    const isWanted = boxes().some((box) => !box.checked);
    for (const box of boxes()) box.checked = isWanted;
    count();
  });
  count(); // a browser that comes back to the page ticks what was ticked
}

let last = null;
document.addEventListener("click", (event) => {
  const box = event.target;
  if (!(box instanceof HTMLInputElement) || box.name !== "picture" || box.type !== "checkbox") return;
  if (event.shiftKey && last) {
    const [first, end] = [boxes().indexOf(last), boxes().indexOf(box)].sort((one, other) => one - other);
    for (const between of boxes().slice(first, end + 1)) between.checked = box.checked;
  }
  last = box;
  count();
});
