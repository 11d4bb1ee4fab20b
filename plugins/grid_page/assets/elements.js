// Builds elements from text only: nothing from the server is ever interpreted as markup.

export const byId = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

export const count = (number) => Number(number).toLocaleString("en");

export function duration(seconds) {
  if (seconds === null) return "unknown";
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// Block numbers in the notation that people write and the server reads: "3, 17-20".
export function blockNumbers(blocks) {
  const parts = [];
  for (const block of [...blocks].sort((a, b) => a - b)) {
    const last = parts.at(-1);
    if (last && block === last[1] + 1) last[1] = block;
    else parts.push([block, block]);
  }
  return parts.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(", ");
}

// Airflow shows this page in a frame that can neither navigate the page around it nor open a new one, so links are
// clicked in the page around it.
export function link(href, text) {
  const follow = (event) => {
    if (window.parent === window) return;
    event.preventDefault();
    const outside = window.parent.document.createElement("a");
    outside.href = event.currentTarget.href;
    window.parent.document.body.append(outside);
    outside.click();
    outside.remove();
  };
  return make("a", { href, onclick: follow }, text);
}

// Ask for confirmation; resolves to whether the user agrees.
export function confirmed(question, consequence, verb) {
  const dialog = byId("confirm");
  byId("question").textContent = question;
  byId("consequence").textContent = consequence;
  byId("do").textContent = verb;
  return new Promise((resolve) => {
    const close = (answer) => {
      dialog.onclose = null;
      dialog.close();
      resolve(answer);
    };
    dialog.onclose = () => resolve(false); // the Escape key
    byId("do").onclick = () => close(true);
    byId("cancel").onclick = () => close(false);
    dialog.showModal();
  });
}
