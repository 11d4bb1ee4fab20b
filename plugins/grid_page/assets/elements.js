// Building elements from text alone: nothing that a server sends is ever read as markup.

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

// Block numbers as people write them and the server reads them: "3, 17-20".
export function written(blocks) {
  const parts = [];
  for (const block of [...blocks].sort((a, b) => a - b)) {
    const last = parts.at(-1);
    if (last && block === last[1] + 1) last[1] = block;
    else parts.push([block, block]);
  }
  return parts.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(", ");
}

// Airflow shows this page in a frame that may neither navigate the page around it nor open another one, so the page
// around it is given the link to follow.
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

// Ask before something is done; resolves to whether it shall be.
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
