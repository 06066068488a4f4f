import { expect, test } from "bun:test";

import { Board } from "../../src/cli/board.ts";

test("Board leaves room for what happens beside names that are long", () => {
  let told = "";
  const long = `${"x".repeat(40)}${"y".repeat(24)}`;
  const board = new Board([long, "b"], (text) => (told = text), 80, false);
  board.set(long, "started (pid 4711)", "32");
  board.set("b", "waits for another one", "2");
  const lines = Bun.stripANSI(told).replaceAll("\r", "").split("\n");
  expect(lines.slice(0, 2)).toEqual([
    "xxxxxxxxxxxxxxxx…yyyyyyyyyyyyyyy  started (pid 4711)",
    "b                                 waits for another one",
  ]);
});
