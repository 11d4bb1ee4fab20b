/* One by one: the next pictures are ready before they are needed, and each look is sent at once, in order.
   Walls: arrow keys move from picture to picture. Both pages also work without this script. */
"use strict";

const AWAY = [502, 503, 504];   // the server, or what is in front of it, says: later

const base = document.documentElement.dataset.base;   // what is before each of our paths

const $ = (id) => document.getElementById(id);

function isTyping(target) {
  return target.matches("input:not([type=checkbox]), select, textarea");
}

function startLooking(main) {
  const state = JSON.parse(main.dataset.state);
  const looked = [];            // what was answered here: {picture, number}; the last one can be taken back
  const answered = new Set();   // positions that the server may still send, because it learns of our answers later
  const images = new Map();     // by position: the picture, loaded and decoded
  let queue = [];               // pictures to show; the first one is shown
  let looks = state.looks;
  let sending = Promise.resolve();
  let waiting = 0;              // requests that were not answered yet
  let hasFailed = false;
  let isAway = false;           // the server does not answer
  let isAsking = false;
  let shown = -1;               // its position
  let returning = state.last;   // the last look of before this page was opened
  const keyOf = new Map(state.tags.filter(([, key]) => key).map(([tag, key]) => [key, tag]));
  const look = $("look"), other = $("other"), undo = $("undo");

  function take(pictures) {
    for (const picture of pictures) {
      if (answered.has(picture.position) || queue.some((known) => known.position === picture.position)) continue;
      queue.push(picture);
      load(picture);
    }
  }

  function load(picture) {
    if (images.has(picture.position)) return;
    const image = new Image();
    image.src = base + picture.source;
    image.width = image.height = 320;
    image.classList.toggle("enlarged", state.is_enlarged);
    image.decode().catch(() => {});
    images.set(picture.position, image);
  }

  function show() {
    const done = Math.min(Math.max(0, looks - state.from), state.to - state.from);
    const of = state.to - state.from;
    const picture = looks < state.to ? queue[0] : undefined;
    $("bar").value = done;
    $("count").textContent = `${done} of ${of} looks`;
    document.title = `Review ${done} of ${of} – TinyTags`;
    undo.hidden = !looked.length && !returning;
    $("picture").classList.toggle("waiting", !picture);
    if (!picture) {
      shown = -1;
      if (looks < state.to && !hasFailed) return ask();
      return void sending.then(() => { if (!hasFailed) location.reload(); });
    }
    if (picture.position === shown) return;
    shown = picture.position;
    const image = images.get(shown);
    image.id = "image";
    image.alt = `picture ${picture.position}`;
    $("image").replaceWith(image);
    $("keyword").textContent = picture.keyword;
    showTag(picture);
    for (const form of [look, other]) {
      form.elements.position.value = picture.position;
      form.elements.why.value = picture.why;
    }
    other.elements.tag.value = "";
  }

  function showTag(picture) {
    const says = $("says");
    says.textContent = "";
    const bold = document.createElement("b");
    if (state.hide) says.append("What does it show?");
    else if (picture.tag) {
      bold.textContent = picture.tag;
      says.append(bold, ` ${picture.confidence} %`);
    } else {
      bold.textContent = "no tag";
      says.append("The model gave it ", bold);
    }
    const group = look.querySelector(".answers");
    group.querySelector("[value=right]")?.remove();
    group.querySelector("[value=wrong]")?.remove();
    if (state.hide) return;
    const right = makeAnswer("right", picture.tag ? "Right" : "Right: no tag", "Enter");
    right.classList.add("primary");
    group.prepend(right);
    if (picture.tag) right.after(makeAnswer("wrong", "Wrong", "n"));
  }

  function makeAnswer(value, label, key) {
    const button = document.createElement("button");
    const shown = document.createElement("kbd");
    button.className = "button answer";
    button.name = "answer";
    button.value = value;
    shown.textContent = key;
    button.append(`${label} `, shown);
    return button;
  }

  function fields(more) {
    const found = new URLSearchParams({token: look.elements.token.value, seat: state.seat, from: state.from, to: state.to, set: state.set});
    for (const name of ["hide", "public"]) if (state[name]) found.set(name, "1");
    for (const [name, value] of Object.entries(more)) found.set(name, value);
    return found;
  }

  async function post(path, more, isAgain = false) {
    const response = await reach(`${base}/api/review/${state.run}/${path}`, fields(more));
    if (response.status === 403 && !isAgain && await renewToken()) return post(path, more, true);
    const answer = await response.json().catch(() => ({}));
    if (!answer.pictures) throw new Error(answer.error || `the server answered ${response.status}`);
    return answer;
  }

  /* A search page that is being started again, or a store that is busy, answers later: looks wait for as long as that. */
  async function reach(address, body) {
    for (let attempt = 1; ; attempt += 1) {
      const response = await fetch(address, {method: "POST", body, keepalive: true}).catch(() => null);
      isAway = !response || AWAY.includes(response.status);
      if (!isAway) {
        $("problem").hidden = true;
        return response;
      }
      tellAway();
      await new Promise((resume) => setTimeout(resume, 1000 * Math.min(attempt, 5)));
    }
  }

  function unsaved() {
    return looked.filter((done) => !done.number).length;
  }

  function tellAway() {
    const problem = $("problem");
    problem.textContent = `The server does not answer. Looks not saved yet: ${unsaved()}. They are kept in this page and sent as soon as it does.`;
    problem.hidden = false;
  }

  async function renewToken() {
    const response = await fetch(`${base}/api/review/${state.run}/token`);
    if (!response.ok) return false;
    const {token} = await response.json();
    for (const input of document.querySelectorAll("input[name=token]")) input.value = token;
    return true;
  }

  /* Requests are sent one after the other, so that the log has the looks in their order. */
  function send(path, more, then) {
    waiting += 1;
    sending = sending.then(async () => {
      if (hasFailed) return;
      try {
        const answer = await post(path, more());
        waiting -= 1;
        then(answer);
        if (!waiting) looks = answer.looks;
        take(answer.pictures);
        if (!waiting || !queue.length) show();
      } catch (error) {
        fail(error);
      }
    });
  }

  function fail(error) {
    hasFailed = true;
    const problem = $("problem");
    const again = document.createElement("a");
    again.href = location.href;
    again.textContent = "Load the page again";
    const lost = unsaved() > 1 ? `The last ${unsaved()} looks were not saved` : "The last look was not saved";
    problem.textContent = `${lost}: ${error.message}. `;
    problem.append(again, " to go on; everything before is saved.");
    problem.hidden = false;
  }

  function ask() {
    if (isAsking || hasFailed) return;
    isAsking = true;
    send("more", () => ({}), (answer) => {
      isAsking = false;
      if (!answer.pictures.some((picture) => !answered.has(picture.position))) location.reload();
    });
  }

  function answer(more) {
    const picture = queue[0];
    if (!picture || hasFailed || looks >= state.to) return;
    if (more.answer === "right" && state.hide) return;
    if (more.answer === "wrong" && (state.hide || !picture.tag)) return void other.elements.tag.focus();
    queue.shift();
    answered.add(picture.position);
    const done = {picture, number: 0};
    looked.push(done);
    looks += 1;
    if (isAway) tellAway();
    send("look", () => ({position: picture.position, why: picture.why, ...more}), (saved) => { done.number = saved.number; });
    show();
    $("picture").focus({preventScroll: true});
  }

  function takeBack() {
    if (hasFailed || (!looked.length && !returning)) return;
    const last = looked.pop();
    if (last) {
      answered.delete(last.picture.position);
      queue.unshift(last.picture);
      looks -= 1;
      if (isAway) tellAway();
      show();
    }
    const number = returning;
    if (!last) returning = 0;
    send("undo", () => ({number: last ? last.number : number}), (answer) => {
      if (!looked.length) returning = answer.last;
      if (last) return;
      for (const picture of answer.again.reverse()) {
        answered.delete(picture.position);
        load(picture);
        queue = [picture, ...queue.filter((known) => known.position !== picture.position)];
      }
    });
    $("picture").focus({preventScroll: true});
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || isTyping(event.target)) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (!$("keys").querySelector("input").checked) return;
    const isOnControl = event.target.matches("button, a, summary, input");
    if (isOnControl && (event.key === "Enter" || event.key === " ")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (key === "Enter" || key === "y") answer({answer: "right"});
    else if (key === "n") answer({answer: "wrong"});
    else if (key === "x") answer({answer: "none"});
    else if (key === "u" || key === "?") answer({answer: "unclear"});
    else if (key === "Backspace" || key === "z") takeBack();
    else if (key === "t") other.elements.tag.focus();
    else if (key === "h") $("switches").elements.hide.click();
    else if (keyOf.has(key)) answer({answer: "tag", tag: keyOf.get(key)});
    else return;
    event.preventDefault();
  }

  look.addEventListener("submit", (event) => {
    event.preventDefault();
    const {name, value} = event.submitter;
    answer(name === "tag" ? {answer: "tag", tag: value} : {answer: value});
  });
  other.addEventListener("submit", (event) => {
    event.preventDefault();
    answer({answer: "tag", tag: other.elements.tag.value});
  });
  undo.addEventListener("submit", (event) => {
    event.preventDefault();
    takeBack();
  });
  document.addEventListener("keydown", onKey);
  addEventListener("beforeunload", (event) => { if (waiting && !hasFailed) event.preventDefault(); });
  startSwitches((name, isOn) => {
    state[name] = isOn;
    if (queue[0]) showTag(queue[0]);
  });
  startSwiping($("picture"), (isRight) => answer({answer: isRight ? "right" : "wrong"}));
  const keys = $("keys").querySelector("input");
  keys.checked = localStorage.getItem("single-keys") !== "off";
  keys.addEventListener("change", () => localStorage.setItem("single-keys", keys.checked ? "on" : "off"));
  $("keys").hidden = false;
  take(state.pictures);
  show();
}

/* Switches act at once, and stay in the address. */
function startSwitches(change) {
  const form = $("switches");
  form.querySelector("button").hidden = true;
  form.addEventListener("change", (event) => {
    const {name, checked} = event.target;
    const address = new URL(location.href);
    if (checked) address.searchParams.set(name, "1");
    else address.searchParams.delete(name);
    history.replaceState(null, "", address);
    for (const input of document.querySelectorAll(`form[method=post] input[type=hidden][name=${name}]`)) input.remove();
    if (checked) for (const post of document.querySelectorAll("form[method=post]")) {
      post.append(Object.assign(document.createElement("input"), {type: "hidden", name, value: "1"}));
    }
    change(name, checked);
  });
}

/* A swipe to the right says right, one to the left says wrong. */
function startSwiping(element, act) {
  let begin = null;
  element.addEventListener("touchstart", (event) => {
    begin = event.touches.length === 1 ? event.touches[0] : null;
  }, {passive: true});
  element.addEventListener("touchend", (event) => {
    if (!begin) return;
    const end = event.changedTouches[0];
    const across = end.clientX - begin.clientX, down = end.clientY - begin.clientY;
    begin = null;
    if (Math.abs(across) > 70 && Math.abs(across) > 2 * Math.abs(down)) act(across > 0);
  });
}

function startWall(list) {
  const boxes = [...list.querySelectorAll("input[type=checkbox]")];
  const struck = $("struck");
  const count = () => {
    const out = boxes.filter((box) => box.checked).length;
    struck.textContent = `${out} struck out, ${boxes.length - out} right`;
  };
  list.addEventListener("change", count);
  list.addEventListener("keydown", (event) => {
    const at = boxes.indexOf(event.target);
    const perRow = boxes.filter((box) => box.closest("li").offsetTop === boxes[0].closest("li").offsetTop).length;
    const step = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: perRow, ArrowUp: -perRow}[event.key];
    if (at < 0 || !step) return;
    event.preventDefault();
    boxes[Math.min(boxes.length - 1, Math.max(0, at + step))].focus();
  });
  startSwitches(() => {});
  count();
  boxes[0]?.focus({preventScroll: true});
}

const main = $("main");
if (main.dataset.state && $("look")) startLooking(main);
if ($("pictures")) startWall($("pictures"));
