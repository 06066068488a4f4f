import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";

import { COMMANDS } from "../../src/cli/commands.ts";
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
