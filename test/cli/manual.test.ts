import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";

import { COMMANDS } from "../../src/cli/commands.ts";
import { manPage } from "../../src/cli/man.ts";
import { manual } from "../../src/cli/manual.ts";

test("docs/cli.md is fresh: bun run manual writes it", () => {
  const page = readFileSync(join(import.meta.dir, "../../docs/cli.md"), "utf8");
  expect(page).toBe(manual());
});

test("the manual has a section for each command, with its JSON", () => {
  for (const { name, json } of COMMANDS) {
    expect(manual()).toContain(`### ${name}\n`);
    expect(json).not.toBe("");
  }
});

test("docs/veecle-orchestrator.1 is fresh: bun run manual writes it", async () => {
  const page = await Bun.file(join(import.meta.dir, "../../docs/veecle-orchestrator.1")).text();
  expect(page).toBe(manPage());
});

test.skipIf(Bun.which("groff") === null)(
  "the manual page has no fault that groff knows",
  async () => {
    const groff = Bun.spawn({
      cmd: ["groff", "-man", "-ww", "-Tutf8"],
      stdin: Buffer.from(manPage()),
      stdout: "pipe",
      stderr: "pipe",
    });
    const [shown, faults] = await Promise.all([groff.stdout.text(), groff.stderr.text()]);
    expect(faults).toBe("");
    expect(Bun.stripANSI(shown).replaceAll(/.\x08/g, "")).toContain("veecle-orchestrator ps");
  },
);
