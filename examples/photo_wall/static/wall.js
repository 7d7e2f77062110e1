// The wall: uploads each chosen file straight to S3, polls its state, shows its placeholder and then its renditions.

import { drawBlurhash } from "./blurhash.js";

const PATIENCE = 180_000; // milliseconds until the page stops polling
const HOME = "http://localhost:8000"; // the upload bucket accepts only uploads from this origin (BaseUrl in samconfig.toml)
const find = (id) => document.getElementById(id);
const wall = find("wall");
const form = find("upload");
const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

/** An element with attributes and children; text is text, never markup. */
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(key, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

const size = (bytes) =>
  bytes < 1024 ** 2 ? `${Math.max(1, Math.round(bytes / 1024))} KB` : `${(bytes / 1024 ** 2).toFixed(1)} MB`;

function say(text) {
  find("said").textContent = text;
}

// ---- one tile ------------------------------------------------------------------------------------------------------

/** A photo's place on the wall, which exists from the moment a file is chosen. */
class Tile {
  constructor(name) {
    this.name = name;
    this.frame = make("div", { class: "frame" });
    this.state = make("p", { class: "state" });
    this.caption = make("p", { class: "caption" }, name);
    this.more = make("div", { class: "more" });
    this.element = make("li", { class: "photo" }, make("figure", {}, this.frame, make("figcaption", {}, this.caption, this.state, this.more)));
  }

  /** Shows a photo's state from the server: processing, ready or rejected. */
  show(photo) {
    this.element.dataset.status = photo.status;
    this.element.dataset.id = photo.id;
    this.more.replaceChildren();
    if (photo.status === "ready") this.showReady(photo);
    else if (photo.status === "rejected") this.fail(`Refused: ${photo.reason || "no reason was given"}`);
    else {
      this.wait(photo.progress ? `Being processed, ${photo.progress}%` : "Being processed", photo.progress ? photo.progress / 100 : null);
      this.hold(photo);
    }
  }

  /** Shows what is known before the renditions are ready: the photo's shape, and its blurred placeholder behind the bar. */
  hold(photo) {
    if (photo.width) this.frame.style.aspectRatio = `${photo.width} / ${photo.height}`;
    if (!photo.placeholder || this.frame.querySelector("canvas")) return;
    const canvas = make("canvas", { "aria-hidden": "true" });
    if (drawBlurhash(photo.placeholder, canvas)) this.frame.prepend(canvas);
  }

  wait(text, progress = null) {
    this.state.replaceChildren(text);
    if (!this.bar) {
      this.bar = make("progress", { "aria-label": `${this.name}: ${text}`, max: 1 });
      this.frame.replaceChildren(this.bar);
    }
    if (progress === null) this.bar.removeAttribute("value");
    else this.bar.value = progress;
  }

  fail(text, again = null) {
    this.element.dataset.status = "rejected";
    this.bar = null;
    this.frame.style.aspectRatio = "";
    this.frame.replaceChildren(make("span", { class: "broken", "aria-hidden": "true" }, "✕"));
    this.state.replaceChildren(make("span", { class: "fault" }, text));
    if (again) {
      const button = make("button", { type: "button" }, "Check again");
      button.addEventListener("click", again, { once: true });
      this.more.replaceChildren(button);
    }
    say(`${this.name}: ${text}`);
  }

  showReady(photo) {
    this.bar = null;
    this.caption.textContent = photo.caption;
    this.frame.style.aspectRatio = `${photo.width} / ${photo.height}`;
    this.frame.style.backgroundColor = photo.colour || "";
    const canvas = make("canvas", { "aria-hidden": "true" });
    const shown = view(photo, this.name);
    this.frame.replaceChildren(...(drawBlurhash(photo.placeholder, canvas) ? [canvas, shown] : [shown]));
    const picture = shown.matches("img") ? shown : shown.querySelector("img");
    if (picture) {
      picture.addEventListener("load", () => {
        shown.classList.add("here");
        setTimeout(() => {
          canvas.hidden = true; // otherwise it shows through a transparent picture
          this.frame.style.backgroundColor = "transparent";
        }, 600);
      });
      picture.addEventListener("error", () => this.fail("The picture cannot be loaded."));
    } else shown.classList.add("here");
    const made = Object.entries(photo.renditions);
    this.state.textContent = `${photo.width} × ${photo.height}, ${made.length} renditions`;
    this.more.replaceChildren(
      make("details", {}, make("summary", {}, "Renditions"), make("ul", { class: "renditions" }, ...made.map(([name, one]) =>
        make("li", {}, make("a", { href: one.url, target: "_blank", rel: "noopener" }, name.replaceAll("_", " ")),
          make("span", {}, `${one.width} × ${one.height}`), make("span", {}, size(one.bytes))),
      ))),
    );
  }
}

/** A ready photo's renditions as an element: the browser picks the width that fits. */
function view(photo, name) {
  const made = photo.renditions;
  const text = photo.caption || name;
  // From social.renditions, best format first; the last one is for browsers that support no other.
  const better = photo.sources.slice(0, -1);
  const last = photo.sources.at(-1) || { url: Object.values(made)[0]?.url, srcset: "" };
  if (photo.kind === "video") {
    return make("video", { controls: true, preload: "none", playsinline: true, poster: last.url, src: made.video?.url, "aria-label": text });
  }
  const sizes = "(min-width: 70rem) 21rem, (min-width: 40rem) 45vw, 95vw";
  const still = make("img", { alt: text, src: last.url, srcset: last.srcset, sizes, width: photo.width, height: photo.height });
  const sources = better.map(({ type, srcset }) => make("source", { type, srcset, sizes }));
  if (made.animated) sources.unshift(make("source", { srcset: made.animated.url, media: "(prefers-reduced-motion: no-preference)" }));
  return sources.length ? make("picture", {}, ...sources, still) : still;
}

// ---- uploading ---------------------------------------------------------------------------------------------------

async function json(address, options) {
  const response = await fetch(address, options);
  const body = response.headers.get("content-type")?.includes("json") ? await response.json() : {};
  if (response.status === 401) location.assign("/");
  if (!response.ok) throw new Error(body.error || `The server responded with ${response.status}.`);
  return body;
}

/** Sends the form to S3. fetch() does not report an upload's progress, so this is an XMLHttpRequest. */
function post(upload, file, progress) {
  return new Promise((done, failed) => {
    const body = new FormData();
    for (const [name, value] of Object.entries(upload.fields)) body.append(name, value);
    body.append("file", file);
    const request = new XMLHttpRequest();
    request.open("POST", upload.url);
    request.upload.addEventListener("progress", (event) => progress(event.loaded / event.total));
    request.addEventListener("load", () => {
      if (request.status < 300) return done();
      const reason = new DOMParser().parseFromString(request.responseText, "text/xml").querySelector("Message");
      failed(new Error(`The upload was refused: ${reason?.textContent || request.status}`));
    });
    request.addEventListener("error", () => failed(new Error(
      location.origin === HOME ? "The upload was interrupted. Are you online?"
        : `The bucket takes uploads from ${HOME} alone (BaseUrl in samconfig.toml), and this page is at ${location.origin}.`,
    )));
    request.send(body);
  });
}

async function follow(tile, id) {
  const end = Date.now() + PATIENCE;
  for (let wait = 300; Date.now() < end; wait = Math.min(wait * 1.4, 3000)) {
    await pause(wait);
    const photo = await json(`/photos/${encodeURIComponent(id)}`);
    tile.show(photo);
    if (photo.status === "ready") return say(`${tile.name} is on the wall.`);
    if (photo.status === "rejected") return;
  }
  tile.fail("This takes longer than usual.", () => attempt(tile, () => follow(tile, id)));
}

async function attempt(tile, steps) {
  try {
    await steps();
  } catch (error) {
    tile.fail(error.message);
  }
}

async function upload(file, caption) {
  const tile = new Tile(file.name);
  find("empty").hidden = true;
  wall.prepend(tile.element);
  await attempt(tile, async () => {
    if (file.size > Number(form.dataset.maxBytes)) throw new Error(`The file is larger than ${size(Number(form.dataset.maxBytes))}.`);
    tile.wait("Uploading", 0);
    const about = JSON.stringify({ name: file.name, type: file.type, size: file.size, caption });
    const agreed = await json("/photos", { method: "POST", headers: { "Content-Type": "application/json" }, body: about });
    await post(agreed.upload, file, (part) => tile.wait("Uploading", part));
    attempt(tile, () => follow(tile, agreed.photo.id)); // not awaited: the next upload does not wait until this one is processed
    tile.wait("Being processed");
  });
}

let queue = Promise.resolve();

function take(files) {
  const caption = find("caption").value;
  for (const file of files) queue = queue.then(() => upload(file, caption));
  form.reset();
}

find("files").addEventListener("change", (event) => take([...event.target.files]));
form.addEventListener("submit", (event) => event.preventDefault());
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  find("drop").addEventListener(name, (event) => {
    event.preventDefault();
    find("drop").classList.toggle("over", name === "dragenter" || name === "dragover");
    if (name === "drop") take([...event.dataTransfer.files]);
  });
}

// ---- what is shown -----------------------------------------------------------------------------------------------

const photos = JSON.parse(find("photos").textContent);
find("empty").hidden = photos.length > 0;
for (const photo of photos) {
  const tile = new Tile(photo.caption || "Photo without a caption");
  tile.show(photo);
  wall.append(tile.element);
  if (photo.status === "processing") attempt(tile, () => follow(tile, photo.id));
}

async function welcomed(notice) {
  for (let wait = 500; ; wait = Math.min(wait * 1.4, 5000)) {
    await pause(wait);
    const run = await json("/welcome");
    if (!run.ended) continue;
    const sent = run.status === "SUCCESS" && run.outcome === "sent";
    if (!sent) notice.textContent = "No welcome mail could be sent.";
    else notice.replaceChildren(`A welcome mail has been sent to ${notice.dataset.address}: `, make("code", {}, "nexus mail sent"), " shows it.");
    return;
  }
}

if (find("welcome")) welcomed(find("welcome")).catch(() => {});
