import { expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { run } from "../support/typist.ts";

const CLI = join(import.meta.dir, "../../src/cli.ts");

test("token new leaves no file behind that it could not write", async () => {
  const folder = mkdtempSync(join(tmpdir(), "token-"));
  try {
    const full = 'trap "" XFSZ; ulimit -f 0; exec "$@"'; // no file may have a byte
    const file = join(folder, "token");
    const child = Bun.spawn(["sh", "-c", full, "sh", process.execPath, CLI, "token", "new", file], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    expect(await child.stderr.text()).toBe(
      `error: Cannot write the token to ${JSON.stringify(file)}\ncaused by: file too large\n`,
    );
    expect([await child.exited, await child.stdout.text(), readdirSync(folder)]).toEqual([
      1,
      "",
      [],
    ]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("token new proposes what can be pasted into a shell", async () => {
  const folder = mkdtempSync(join(tmpdir(), "token-"));
  try {
    const { code, err } = await run(["token", "new", "my token"], { folder });
    expect(code).toBe(0);
    expect(err).toContain(` --token-file '${folder}/my token' --control-socket HOST:PORT\n`);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
