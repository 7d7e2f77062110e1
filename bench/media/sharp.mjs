// The same renditions by sharp on Node, as bench/media/picture_ways.py serves them: node sharp.mjs usual|best
// Its packages stand in .local/bench-node (make .local/bench-node/ready).
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const require = createRequire(fileURLToPath(new URL("../../.local/bench-node/", import.meta.url)));
const sharp = require("sharp");
const { encode } = require("blurhash");

async function hash(picture) {
  const pixels = await picture.resize(32, 24, { fit: "fill" }).ensureAlpha().raw().toBuffer();
  return encode(new Uint8ClampedArray(pixels), 32, 24, 4, 3);
}

// One pipeline a size, side by side, as sharp's documentation has it.
async function usual(source) {
  const to = (...size) =>
    sharp(source).autoOrient().resize(...size, { withoutEnlargement: true }).webp({ quality: 80 }).toBuffer();
  const [w1080, w640, w320, thumbnail] = await Promise.all([to(1080, null), to(640, null), to(320, null), to(150, 150)]);
  return { w1080, w640, w320, thumbnail, blurhash: await hash(sharp(w320)) };
}

// One decode that shrinks as it loads, a cascade of raw pixels, a lighter encoder setting.
async function best(source) {
  const made = {};
  const encoding = [];
  let level = sharp(source).autoOrient();
  const webp = async (name, picture) => (made[name] = await picture.webp({ quality: 80, effort: 2 }).toBuffer());
  for (const width of [1080, 640, 320]) {
    const { data, info } = await level
      .resize({ width, withoutEnlargement: true }).raw().toBuffer({ resolveWithObject: true });
    const pixels = { raw: { width: info.width, height: info.height, channels: info.channels } };
    level = sharp(data, pixels);
    encoding.push(webp(`w${width}`, sharp(data, pixels)));
    if (width === 320) {
      encoding.push(webp("thumbnail", sharp(data, pixels).resize(150, 150)));
      encoding.push(hash(sharp(data, pixels)).then((text) => (made.blurhash = text)));
    }
  }
  await Promise.all(encoding);
  return made;
}

const make = { usual, best }[process.argv[2]];
for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  const source = readFileSync(order.path);
  const before = process.cpuUsage();
  const began = performance.now();
  const { blurhash, ...files } = await make(source);
  const wall = performance.now() - began;
  const used = process.cpuUsage(before);
  const peak = Number(/VmHWM:\s*(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))[1]) / 1024;
  if (order.keep) writeFileSync(order.keep, files.w1080);
  const bytes = Object.values(files).reduce((sum, file) => sum + file.length, 0);
  console.log(JSON.stringify({ cpu: (used.user + used.system) / 1000, wall, bytes, peak, blurhash }));
}
