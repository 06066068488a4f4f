import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";

import { FakeDaemon } from "../support/fake-daemon.ts";
import { Screen } from "../support/screen.ts";
import { A } from "../support/typist.ts";
import { within } from "../support/wire.ts";

const CLI = join(import.meta.dir, "../../src/cli.ts");
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

describe("Terminal.outputClosed() ends a command whose output has lost its reader", () => {
  /** A daemon with an instance that prints one line, and the command that follows it. */
  function follow(): { daemon: FakeDaemon; argv: string[] } {
    const daemon = new FakeDaemon((_body, connection) => {
      connection.ok(null);
      connection.frame("one");
    });
    return {
      daemon,
      argv: [process.execPath, CLI, "runtime", "stdout", A, "--socket", daemon.path],
    };
  }

  /** What a program prints first; then nobody reads any more. */
  async function firstOf({ stdout }: Bun.ReadableSubprocess): Promise<string> {
    const reader = stdout.getReader();
    const { value = new Uint8Array() } = await reader.read();
    await reader.cancel();
    return Buffer.from(value).toString();
  }

  /** Shorter than the pause between two looks that would be needed if the system did not tell. */
  const AT_ONCE_MS = 400;

  test("at once, if that is a pipe", async () => {
    const times: number[] = [];
    for (let i = 0; i < 3; i++) {
      const { daemon, argv } = follow();
      using _ = daemon;
      const piped = `{ "$@"; echo $? >&2; } | head -1`;
      const child = Bun.spawn(["sh", "-c", piped, "sh", ...argv], {
        stdio: ["ignore", "pipe", "pipe"],
      });
      expect(await firstOf(child)).toBe("one\n");
      const readMs = performance.now();
      expect(await within("it ends", child.stderr.text())).toBe("0\n");
      times.push(performance.now() - readMs);
    }
    expect(Math.min(...times)).toBeLessThan(AT_ONCE_MS);
  });

  test("soon, if that is a socket", async () => {
    const { daemon, argv } = follow();
    using _ = daemon;
    const child = Bun.spawn(argv, { stdio: ["ignore", "pipe", "pipe"] });
    expect(await firstOf(child)).toBe("one\n");
    expect([await within("it ends", child.exited), await child.stderr.text()]).toEqual([0, ""]);
  });
});

test("Terminal.report() tells all of it, however slow its reader", async () => {
  using daemon = new FakeDaemon(() => {});
  const links = Array.from(
    { length: 2_000 },
    (_, i) => `[[links]]\ntype = "a::B${i}"\nto = "nobody"\n`,
  );
  writeFileSync(join(daemon.folder, "orchestrator.toml"), links.join(""));
  const slow = `"$@" 2>&1 >/dev/null | { sleep 0.3; tail -1; }`; // as if somebody paged through it
  const child = Bun.spawn(["sh", "-c", slow, "sh", process.execPath, CLI, "plan", daemon.folder], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  expect(await within("it ends", child.stdout.text())).toStartWith(
    'error: Cannot use the manifest "orchestrator.toml": 2000 faults',
  );
});
