// Inputs that are nearly right: samples, changed in a few places by what such formats break on.

import type { Random } from "../support/random.ts";

/** Pieces that parsers stumble over, put in anywhere. */
const PIECES: readonly string[] = [
  "\0", "\n", "\r\n", "\x1b[2J", "\x7f", "\u0085", "\u202e", "\ufeff", "\ufffd", '"', "\\", "\\u", "\\ud800",
  "{", "}", "[", "]", ",", ":", "null", "true", "-0", "1e999", "9007199254740993", "0x10", "01", "NaN",
  '"__proto__":', '"constructor":', "{}", "[]", '""', "$", "${", "${A:-", "../", "/", " ", "\t", "#", "'", "=",
  "[[", "{".repeat(80), "[".repeat(200), "a".repeat(1_100), "é", "🚗",
]; // prettier-ignore

/** Numbers that stand for lengths: nothing, one off, everything. */
const LENGTHS: readonly number[] = [0, 1, 2, 3, 4, 7, 8, 255, 256, 1_024, 1_025, 65_535, 2 ** 20, 2 ** 24 - 1, 2 ** 24, 2 ** 32 - 1]; // prettier-ignore

/** Longer samples are files, whose pages are mostly empty. */
const SPARSE = 4_096;

/** A sample with one to six changes; sometimes none. */
export function mutate(random: Random, sample: Buffer, others: readonly Buffer[]): Buffer {
  let bytes: Buffer = Buffer.from(sample);
  for (let changes = random.int(0, 6); changes > 0; changes--)
    bytes = change(random, bytes, others);
  return bytes;
}

function change(random: Random, bytes: Buffer, others: readonly Buffer[]): Buffer {
  const at = somewhere(random, bytes);
  const end = Math.min(bytes.length, at + random.size(0, 64));
  switch (random.int(0, 9)) {
    case 0: // one bit
      if (at < bytes.length) bytes[at] = (bytes[at] as number) ^ (1 << random.int(0, 7));
      return bytes;
    case 1: // one byte
      if (at < bytes.length) bytes[at] = random.int(0, 255);
      return bytes;
    case 2:
      return bytes.subarray(0, at);
    case 3:
      return splice(bytes, at, end, Buffer.alloc(0));
    case 4:
      return splice(bytes, at, at, bytes.subarray(at, end));
    case 5:
    case 6:
      return splice(bytes, at, random.chance(0.5) ? at : end, Buffer.from(random.pick(PIECES)));
    case 7: {
      const length = Buffer.alloc(4);
      length.writeUInt32BE(random.pick(LENGTHS));
      const word = random.chance(0.5) ? length : length.subarray(2);
      return splice(bytes, at, at + word.length, word);
    }
    case 8: {
      const other = others.length === 0 ? bytes : random.pick(others);
      const from = random.int(0, other.length);
      return splice(bytes, at, end, other.subarray(from, from + random.size(0, 200)));
    }
    default:
      return splice(bytes, at, at, random.bytes(random.size(1, 40)));
  }
}

/** Anywhere; in what is mostly empty, rather where something is. */
function somewhere(random: Random, bytes: Buffer): number {
  let at = random.int(0, bytes.length);
  for (let tries = 0; bytes[at] === 0 && bytes.length > SPARSE && tries < 16; tries++) {
    at = random.int(0, bytes.length);
  }
  return at;
}

function splice(bytes: Buffer, start: number, end: number, insert: Buffer): Buffer {
  return Buffer.concat([bytes.subarray(0, start), insert, bytes.subarray(end)]);
}

/** The shortest input found that fails still: parts are taken away while it does. */
export async function shrink(
  input: Buffer,
  fails: (input: Buffer) => Promise<boolean>,
): Promise<Buffer> {
  let best = input;
  for (let size = best.length >> 1; size >= 1; size >>= 1) {
    for (let at = 0; at < best.length;) {
      const shorter = splice(best, at, at + size, Buffer.alloc(0));
      if (await fails(shorter)) best = shorter;
      else at += size;
    }
  }
  return best;
}
