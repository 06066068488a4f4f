// The daemon's log on its way to a descriptor that does not take it.

import { afterAll, beforeAll, expect, test } from "bun:test";
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { LineWriter } from "../../src/files/lines.ts";
import { MAX_LOG_BACKLOG_BYTES } from "../../src/limits.ts";
import { Disk } from "../support/disk.ts";
import { until } from "../support/wire.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "vo-lines-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const LINE = `${"x".repeat(1_023)}\n`;
const COUNT = (2 * MAX_LOG_BACKLOG_BYTES) / LINE.length;

/** Writes more than waits, and one line when there is room again. */
function overfill(writer: LineWriter): void {
  for (let i = 0; i < COUNT; i++) writer.write(LINE);
}

/** Every line is there, or counted as dropped; none is half. */
function checkLines(text: string): void {
  const lines = text.split("\n").slice(0, -1);
  const kept = lines.filter((line) => `${line}\n` === LINE).length;
  const dropped = /^\[(\d+) log lines dropped: there was no room for them\]$/m.exec(text)?.[1];
  expect(kept + Number(dropped)).toBe(COUNT);
  expect(lines).toHaveLength(kept + 1);
}

test("A log goes on when the full disk that it is written to has room again (R6)", async () => {
  const disk = Disk.mount(4 * MAX_LOG_BACKLOG_BYTES);
  if (disk === undefined) return;
  const path = join(disk.folder, "log");
  const fd = openSync(path, "a");
  try {
    const writer = new LineWriter(fd);
    disk.fill(10_000);
    overfill(writer);
    disk.makeRoom();
    await until("the rest is written", () => readFileSync(path, "utf8").includes("dropped"));
    checkLines(readFileSync(path, "utf8"));
    writer.write("next\n");
    expect(readFileSync(path, "utf8")).toEndWith("\nnext\n");
  } finally {
    closeSync(fd);
    disk.unmount();
  }
});

test("A log goes on when its reader does", async () => {
  const path = join(folder, "pipe");
  expect(Bun.spawnSync({ cmd: ["mkfifo", path] }).success).toBe(true);
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const fd = openSync(path, constants.O_WRONLY);
  try {
    overfill(new LineWriter(fd));
    let text = "";
    const piece = Buffer.alloc(65_536);
    await until("the rest is read", () => {
      try {
        text += piece.toString("latin1", 0, readSync(reader, piece));
      } catch (error) {
        expect((error as { code?: unknown }).code).toBe("EAGAIN");
      }
      return text.includes("dropped");
    });
    checkLines(text);
  } finally {
    closeSync(fd);
    closeSync(reader);
  }
});
