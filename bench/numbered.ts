// The lines of the output rows: each says its number, so that whoever has some can tell what is missing.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";

export const LINE_BYTES = 100;
export const NUMBER_DIGITS = 12;
const FILL = `${" the quick brown fox jumps over the lazy dog".repeat(2).slice(0, 87)}\n`;

export function numberedLine(number: number): string {
  return `${String(number).padStart(NUMBER_DIGITS, "0")}${FILL}`;
}

/** What is left of the lines in the files of a folder. */
export interface LinesFound {
  /** Number of the last line. */
  readonly last: number;
  /** Lines that a note in their place says were dropped. */
  readonly dropped: number;
  /** Of the last line. */
  readonly crc: number;
}

/** @throws if a line between the first and the last that are there is wrong or missing */
export function checkLines(folder: string): LinesFound {
  const paths = readdirSync(folder).sort();
  const text = paths.map((name) => readFileSync(join(folder, name), "latin1")).join("");
  let next: number | undefined;
  let dropped = 0;
  for (const line of text.split("\n")) {
    if (line === "" || /^@\d{13} [oen] /.test(line)) continue;
    const note = /^\[.* (\d+) lines dropped/.exec(line);
    if (note !== null) {
      dropped += Number(note[1]);
      next = (next ?? 0) + Number(note[1]);
      continue;
    }
    if (next === undefined && line.length < LINE_BYTES - 1) continue; // its beginning was rotated out
    next ??= Number(line.slice(0, NUMBER_DIGITS));
    if (`${line}\n` !== numberedLine(next)) {
      throw new Error(`Instead of line ${next} there is ${JSON.stringify(line)}`);
    }
    next++;
  }
  if (next === undefined) throw new Error(`There are no lines in ${folder}`);
  return { last: next - 1, dropped, crc: crc32(numberedLine(next - 1)) };
}
