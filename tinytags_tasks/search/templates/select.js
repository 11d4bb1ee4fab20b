// Corrections without loading the page again, and Shift to select several images at once. The page works without this.
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

let last = null;
document.addEventListener("click", (event) => {
  const box = event.target;
  if (!(box instanceof HTMLInputElement) || box.name !== "picture" || box.type !== "checkbox") return;
  const boxes = [...document.querySelectorAll('input[type="checkbox"][name="picture"]')];
  if (event.shiftKey && last) {
    const [first, end] = [boxes.indexOf(last), boxes.indexOf(box)].sort((one, other) => one - other);
    for (const between of boxes.slice(first, end + 1)) between.checked = box.checked;
  }
  last = box;
  const chosen = boxes.filter((one) => one.checked).length;
  const said = document.getElementById("picked");
  if (said) said.textContent = chosen ? `${chosen} ticked` : "The ticked images";
});
