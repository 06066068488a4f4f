import { expect, test } from "bun:test";
import { join } from "node:path";

import { Screen } from "../support/screen.ts";

const ASKER = join(import.meta.dir, "../fixtures/asker.ts");

/** A program that asks three times. */
function asker(): Screen {
  return new Screen([], { within: `exec "$1" ${ASKER}` });
}

test("Terminal.ask() asks again in the same command", async () => {
  await using screen = asker();
  for (const question of ["first", "second", "third"]) {
    await screen.shows(new RegExp(`${question}\\?`));
    screen.type(`to ${question}\r`);
  }
  await screen.shows(/answers: \["to first","to second","to third"\]/);
  expect(await screen.ended()).toBe(0);
});

test("Terminal.ask() keeps what is typed before it asks, line by line", async () => {
  await using screen = asker();
  await screen.shows(/first\?/);
  screen.type("one\rtwo\rthree\r");
  await screen.shows(/answers: \["one","two","three"\]/);
  expect(await screen.ended()).toBe(0);
});

test("Terminal.ask() takes the end of the input for an empty answer, every time", async () => {
  await using screen = asker();
  await screen.shows(/first\?/);
  screen.type("one\r");
  await screen.shows(/second\?/);
  screen.type("\x04");
  await screen.shows(/answers: \["one","",""\]/);
  expect(await screen.ended()).toBe(0);
});
