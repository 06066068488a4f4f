// Prints numbered lines of 100 bytes on standard output, as many bytes as it is told, and says when
// the last of them is written.

import { writeSync } from "node:fs";

import { LINE_BYTES, NUMBER_DIGITS, numberedLine } from "./numbered.ts";
import { reportTo } from "./side.ts";

const [sidePath, name] = process.argv.slice(2) as [string, string];
const LINES = 2_000;
const block = Buffer.from(Array.from({ length: LINES }, (_, i) => numberedLine(i)).join(""));
let next = 0;

/** Numbers the first lines of the block from `next` on; what is in front of a number stays zeros. */
function number(count: number): void {
  for (let i = 0; i < count; i++, next++) {
    let at = i * LINE_BYTES + NUMBER_DIGITS;
    for (let rest = next; rest > 0; rest = Math.floor(rest / 10)) block[--at] = 48 + (rest % 10);
  }
}

function print(bytes: number): void {
  for (let left = bytes / LINE_BYTES; left > 0;) {
    const count = Math.min(left, LINES);
    number(count);
    for (let at = 0; at < count * LINE_BYTES;) {
      at += writeSync(1, block, at, count * LINE_BYTES - at);
    }
    left -= count;
  }
}

await reportTo(sidePath, name, (command, answer) => {
  if (command.kind !== "send") return;
  print(command.bytes);
  answer({ bytes: command.bytes });
});
