"use strict";
// A picture or the camera goes to /v1/detect, the answer is drawn over it; /v1/status tells the ladder and the load.

const at = (id) => document.getElementById(id);
const LONGEST = 1600; // pixels of a side that are sent
const TYPES = ["image/jpeg", "image/png", "image/webp", "image/bmp"];
const COLOURS = ["#e8590c", "#1c7ed6", "#2f9e44", "#ae3ec9", "#f08c00", "#0c8599", "#d6336c", "#5f3dc4"];

let ladder = []; // of the server: point, AP, macs, idle_ms, expected_ms
let picture = null; // {bitmap, blob}
let video = null;
let token = "";
let busy = false, again = false;

async function get(path) {
  return await fetch(path, { headers: token ? { authorization: `Bearer ${token}` } : {} });
}

function complain(text) {
  at("error").textContent = text;
  at("error").hidden = !text;
}

// ---------------------------------------------------------------------------------------------- pictures

async function take(file) {
  stopCamera();
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    complain("This browser cannot read that file as a picture.");
    return;
  }
  picture = await prepared(bitmap, TYPES.includes(file.type) ? file : null);
  show(picture.bitmap, []);
  await detect();
}

// What is large, or of a type that the server does not take, is drawn anew.
async function prepared(bitmap, blob) {
  const scale = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
  if (blob && scale === 1) return { bitmap, blob };
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(bitmap.width * scale);
  canvas.height = Math.round(bitmap.height * scale);
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return { bitmap: canvas, blob: await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9)) };
}

async function startCamera() {
  if (!navigator.mediaDevices) {
    complain("The camera is only there on https, or on the server's own machine.");
    return;
  }
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false });
    video = document.createElement("video");
    video.playsInline = video.muted = true;
    video.srcObject = stream;
    await video.play();
  } catch (error) {
    video = null;
    complain(`The camera cannot be used: ${error.message}`);
    return;
  }
  complain("");
  at("camera").textContent = "Stop the camera";
  at("camera").setAttribute("aria-pressed", "true");
  while (video) {
    if (video.videoWidth) {
      picture = await prepared(await createImageBitmap(video), null);
      await detect();
    }
    await new Promise(requestAnimationFrame);
  }
}

function stopCamera() {
  if (!video) return;
  for (const track of video.srcObject.getTracks()) track.stop();
  video = null;
  at("camera").textContent = "Use the camera";
  at("camera").setAttribute("aria-pressed", "false");
}

// ---------------------------------------------------------------------------------------------- detection

async function detect() {
  if (!picture) return;
  if (busy) {
    again = true; // with whatever is set by then
    return;
  }
  busy = true;
  const { bitmap, blob } = picture;
  const query = at("by-hand").checked
    ? `point=${at("rung").value}&deadline_ms=10000`
    : `deadline_ms=${at("deadline").value}`;
  try {
    const headers = { "content-type": blob.type };
    if (token) headers.authorization = `Bearer ${token}`;
    const reply = await fetch(`/v1/detect?${query}`, { method: "POST", body: blob, headers });
    const answer = await reply.json();
    at("key").hidden = reply.status !== 401;
    complain(reply.ok ? "" : answer.error);
    if (reply.ok) {
      show(bitmap, answer.detections);
      tell(answer);
    }
  } catch (error) {
    complain(`The server does not answer: ${error.message}`);
  }
  busy = false;
  if (again) {
    again = false;
    await detect();
  }
}

function show(bitmap, detections) {
  const canvas = at("picture");
  at("stage").classList.add("full");
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const unit = Math.max(1, Math.max(bitmap.width, bitmap.height) / 500);
  context.font = `${12 * unit}px system-ui, sans-serif`;
  context.textBaseline = "top";
  for (const one of detections) if (one.segmentation) paint(context, one);
  for (const one of detections.slice().reverse()) {
    const label = `${one.name} ${Math.round(100 * one.score)}`;
    context.strokeStyle = context.fillStyle = colour(one);
    context.lineWidth = 2 * unit;
    context.strokeRect(one.x1, one.y1, one.x2 - one.x1, one.y2 - one.y1);
    const top = Math.max(0, one.y1 - 15 * unit);
    context.fillRect(one.x1, top, context.measureText(label).width + 6 * unit, 15 * unit);
    context.fillStyle = "#fff";
    context.fillText(label, one.x1 + 3 * unit, top + 2 * unit);
  }
  const names = detections.map((one) => one.name).join(", ");
  canvas.setAttribute("aria-label", names ? `Found: ${names}` : "Nothing found");
}

const colour = (one) => COLOURS[(one.label - 1) % COLOURS.length];

// COCO's run lengths: by columns, the first run of zeros.
function runs(counts) {
  const found = [];
  for (let place = 0; place < counts.length; ) {
    let value = 0, shift = 0, group;
    do {
      group = counts.charCodeAt(place++) - 48;
      value |= (group & 31) << shift;
      shift += 5;
    } while (group & 32);
    if (group & 16 && shift < 32) value |= -1 << shift;
    if (found.length > 2) value += found[found.length - 2];
    found.push(value);
  }
  return found;
}

function paint(context, one) {
  const [height, width] = one.segmentation.size;
  const layer = new ImageData(width, height);
  const [red, green, blue] = colour(one).match(/\w\w/g).map((pair) => parseInt(pair, 16));
  let pixel = 0, inside = false;
  for (const length of runs(one.segmentation.counts)) {
    for (let end = pixel + length; pixel < end; pixel++) {
      if (!inside) continue;
      layer.data.set([red, green, blue, 110], 4 * ((pixel % height) * width + Math.floor(pixel / height)));
    }
    inside = !inside;
  }
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(layer, 0, 0);
  context.drawImage(canvas, 0, 0);
}

// ---------------------------------------------------------------------------------------------- numbers

const ms = (value) => (value < 10 ? value.toFixed(1) : String(Math.round(value)));

function tell(answer) {
  at("total").textContent = ms(answer.timings.total_ms);
  at("inference").textContent = ms(answer.timings.inference_ms);
  at("width").textContent = answer.point.width;
  const proposals = answer.point.proposals ? `, ${answer.point.proposals} proposals` : "";
  at("rest").textContent = `width, ${answer.point.imgsz} px${proposals}`;
  const macs = ladder[answer.rung]?.macs;
  at("macs").textContent = macs ? (macs / 1e9).toPrecision(2) : "–";
  at("ap").textContent = answer.AP === null ? "–" : (100 * answer.AP).toFixed(1);
  draw(answer.rung);
}

function draw(rung) {
  const svg = at("curve"), known = ladder.filter((step) => step.AP !== null);
  at("curve-box").hidden = known.length < 2;
  if (known.length < 2) return;
  const times = known.map((step) => step.expected_ms), aps = known.map((step) => 100 * step.AP);
  const right = 1.08 * Math.max(...times), low = 0.9 * Math.min(...aps), high = 1.05 * Math.max(...aps);
  const x = (value) => 50 + (535 * value) / right;
  const y = (value) => 220 - (200 * (value - low)) / (high - low);
  const place = (step) => [x(step.expected_ms), y(100 * step.AP)];
  svg.replaceChildren();
  const add = (name, attributes, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    svg.append(element);
  };
  add("line", { class: "axis", x1: 50, y1: 220, x2: 585, y2: 220 });
  add("line", { class: "axis", x1: 50, y1: 20, x2: 50, y2: 220 });
  for (let part = 0; part <= 4; part++) {
    const time = (right * part) / 4, ap = low + ((high - low) * part) / 4;
    add("text", { x: x(time), y: 238, "text-anchor": "middle" }, ms(time));
    add("text", { x: 44, y: y(ap) + 4, "text-anchor": "end" }, ap.toFixed(0));
  }
  add("text", { x: 585, y: 256, "text-anchor": "end" }, "ms");
  add("text", { x: 58, y: 18 }, "AP");
  add("path", { d: "M" + known.map((step) => place(step).join(" ")).join("L") });
  for (const step of known) {
    const [cx, cy] = place(step);
    add("circle", { class: "point", cx, cy, r: 4 });
  }
  const now = ladder[rung];
  if (now && now.AP !== null) {
    const [cx, cy] = place(now);
    add("circle", { class: "now", id: "now", cx, cy, r: 9 });
  }
  svg.dataset.rung = rung;
}

async function watch() {
  try {
    const reply = await get("/v1/status");
    at("key").hidden = reply.status !== 401;
    if (reply.ok) {
      const state = await reply.json();
      const first = !ladder.length;
      ladder = state.ladder;
      if (first) begin(state);
      const part = (value) => `${(100 * value).toFixed(0)} %`;
      const pieces = [`${state.requests_per_s.toFixed(1)} requests a second`];
      if (state.attainment !== null) pieces.push(`${part(state.attainment)} in time`);
      if (state.AP !== null) pieces.push(`mean AP ${(100 * state.AP).toFixed(1)}`);
      pieces.push(`${state.waiting} waiting`, `${state.workers} worker${state.workers === 1 ? "" : "s"}`);
      pieces.push(`detection takes ${state.load.toFixed(2)} times what it took at the start`);
      at("load").textContent = pieces.join(" · ");
      draw(at("curve").dataset.rung ?? -1);
    }
  } catch {
    at("load").textContent = "The server does not answer.";
  }
  setTimeout(watch, 1000);
}

function begin(state) {
  const classes = state.classes.length > 8 ? `${state.classes.length} classes` : state.classes.join(", ");
  at("model").textContent = `${state.model}: ${classes}`;
  at("rung").max = ladder.length - 1;
  at("rung").value = ladder.length - 1;
  at("deadline").value = state.deadline_ms;
  at("held").textContent = at("deadline").value;
}

// ---------------------------------------------------------------------------------------------- what people do

at("file").addEventListener("change", (event) => event.target.files[0] && take(event.target.files[0]));
at("camera").addEventListener("click", () => (video ? stopCamera() : startCamera()));
at("rung").addEventListener("input", detect);
at("deadline").addEventListener("input", () => {
  at("held").textContent = at("deadline").value;
  detect();
});
for (const id of ["by-hand", "by-server"]) {
  at(id).addEventListener("change", () => {
    at("hand").hidden = !at("by-hand").checked;
    at("auto").hidden = at("by-hand").checked;
    detect();
  });
}
at("key").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value;
  detect();
});
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    at("stage").classList.add("over");
  });
}
for (const name of ["dragleave", "drop"]) document.addEventListener(name, () => at("stage").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const file = event.dataTransfer.files[0];
  if (file) take(file);
});
document.addEventListener("paste", (event) => event.clipboardData.files[0] && take(event.clipboardData.files[0]));
watch();
