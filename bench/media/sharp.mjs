// The same renditions by sharp on Node, as bench/media/picture_ways.py serves them:
//     node sharp.mjs RECIPES, which are [{name, width, height, square, encoding, quality}]
// Its packages are in .local/bench-node (make .local/bench-node/ready).
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const require = createRequire(fileURLToPath(new URL("../../.local/bench-node/", import.meta.url)));
const sharp = require("sharp");
const { encode } = require("blurhash");
sharp.concurrency(1); // one thread, like the others
sharp.cache(false);

async function hash(picture) {
  const pixels = await picture.resize(32, 24, { fit: "fill" }).ensureAlpha().raw().toBuffer();
  return encode(new Uint8ClampedArray(pixels), 32, 24, 4, 3);
}

// sharp's default for AVIF is 4:4:4, and tuned for another measure than SSIM.
const EFFORT = {
  WEBP: { effort: 2 },
  AVIF: { effort: 0, chromaSubsampling: "4:2:0", tune: "ssim" },
  JPEG: { progressive: true, optimizeCoding: true },
};
const save = (picture, { encoding, quality }) => picture[encoding.toLowerCase()]({ quality, ...EFFORT[encoding] }).toBuffer();
const fit = (picture, { width, height, square }) =>
  picture.resize(width, height, { fit: square ? "cover" : "inside", withoutEnlargement: true });

// One decode that shrinks as it loads, a cascade of raw pixels, lighter encoder settings.
async function make(source, recipes) {
  const made = {};
  const encoding = [];
  let [level, width] = [sharp(source).autoOrient(), Infinity];
  const ordered = recipes.toSorted((a, b) => a.square - b.square || b.width - a.width);
  let pixels;
  for (const one of ordered) {
    if (!one.square && one.width < width) {
      const { data, info } = await fit(level, one).raw().toBuffer({ resolveWithObject: true });
      const raw = { raw: { width: info.width, height: info.height, channels: info.channels } };
      pixels = () => sharp(data, raw);
      [level, width] = [pixels(), info.width];
    }
    const shown = one.square ? fit(pixels(), one) : pixels();
    encoding.push(save(shown, one).then((file) => (made[one.name] = file)));
  }
  encoding.push(hash(pixels()).then((text) => (made.blurhash = text)));
  await Promise.all(encoding);
  return made;
}

const recipes = JSON.parse(process.argv[2]);
for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  const source = readFileSync(order.path);
  const wanted = recipes.map((one) => ({ ...one, quality: one.quality + order.shift }));
  const before = process.cpuUsage();
  const { blurhash, ...files } = await make(source, wanted);
  const used = process.cpuUsage(before);
  const peak = Number(/VmHWM:\s*(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))[1]) / 1024;
  if (order.keep) for (const [name, file] of Object.entries(files)) writeFileSync(`${order.keep}/${name}`, file);
  const bytes = Object.values(files).reduce((sum, file) => sum + file.length, 0);
  console.log(JSON.stringify({ cpu: (used.user + used.system) / 1000, bytes, peak }));
}
