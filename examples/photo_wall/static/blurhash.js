// Decodes a blurhash (https://github.com/woltapp/blurhash) into a small canvas, which the page stretches.

const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz#$%*+,-.:;=?@[]^_{|}~";

const number = (text) => [...text].reduce((value, digit) => value * 83 + DIGITS.indexOf(digit), 0);
const toLinear = (level) => (level / 255 <= 0.04045 ? level / 255 / 12.92 : ((level / 255 + 0.055) / 1.055) ** 2.4);
const toLevel = (light) =>
  Math.round(255 * (light <= 0.0031308 ? light * 12.92 : 1.055 * Math.min(1, light) ** (1 / 2.4) - 0.055));
const signedSquare = (value) => Math.sign(value) * value * value;

/** The blurhash drawn into `canvas`, which becomes `width` x `height` pixels. False if the text is not a blurhash. */
export function drawBlurhash(text, canvas, width = 32, height = 32) {
  if (!text || text.length < 6) return false;
  const flag = number(text[0]);
  const across = (flag % 9) + 1;
  const down = Math.floor(flag / 9) + 1;
  if (text.length !== 4 + 2 * across * down) return false;

  const strongest = (number(text[1]) + 1) / 166;
  const average = number(text.slice(2, 6));
  const waves = [[toLinear(average >> 16), toLinear((average >> 8) & 255), toLinear(average & 255)]];
  for (let i = 1; i < across * down; i++) {
    const packed = number(text.slice(4 + i * 2, 6 + i * 2));
    waves.push([Math.floor(packed / 361), Math.floor(packed / 19) % 19, packed % 19].map((v) => signedSquare((v - 9) / 9) * strongest));
  }

  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const light = [0, 0, 0];
      for (let j = 0; j < down; j++) {
        for (let i = 0; i < across; i++) {
          const weight = Math.cos((Math.PI * x * i) / width) * Math.cos((Math.PI * y * j) / height);
          waves[j * across + i].forEach((value, channel) => (light[channel] += value * weight));
        }
      }
      image.data.set([...light.map((value) => toLevel(Math.max(0, value))), 255], 4 * (y * width + x));
    }
  }
  context.putImageData(image, 0, 0);
  return true;
}
