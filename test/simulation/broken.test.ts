// The simulations prove something only if they notice: rules of the product, broken one at a time in a
// copy of it, and the simulation that has to fail then.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

setDefaultTimeout(120_000);

const ROOT = join(import.meta.dir, "../..");

/** A rule, where it stands, and how it is broken. */
const RULES: readonly (readonly [
  rule: string,
  simulation: "supervision" | "memory" | "core",
  file: string,
  before: string,
  after: string,
])[] = [
  [
    "ten restarts within a minute are enough",
    "supervision",
    "supervisor/restart.ts",
    "this.#ends.length >= MAX_RESTARTS",
    "this.#ends.length > MAX_RESTARTS",
  ],
  [
    "who was well for ten seconds begins anew",
    "supervision",
    "supervisor/restart.ts",
    "if (ranMs >= RESTART_RESET_MS) this.reset();",
    "",
  ],
  [
    "a stop ends the pause before a restart as well",
    "supervision",
    "lifecycle.ts",
    'stop: { state: "stopping", action: "kill" },\n    remove: { state: "waiting"',
    'stop: { state: "waiting", action: "none" },\n    remove: { state: "waiting"',
  ],
  [
    "what could not be made durable is undone",
    "memory",
    "memory.ts",
    "for (const undo of undos.toReversed()) undo();",
    "",
  ],
  [
    "what goes is durable before it goes",
    "memory",
    "memory.ts",
    "if (batch.error !== undefined) {\n      throw",
    "if (false) {\n      throw",
  ],
  [
    "the latest status of a process is kept",
    "memory",
    "memory.ts",
    "for (const id of this.#dirtyRuns) saveRun(id);",
    "",
  ],
  [
    "an answer waits until what it says is durable",
    "core",
    "control/answers.ts",
    "const committed = this.#options.commit();",
    "const committed = undefined;",
  ],
  [
    "an answer waits until the disk has what it says",
    "core",
    "control/answers.ts",
    "const durable = this.#isPromise ? committed : undefined;",
    "const durable = undefined;",
  ],
  [
    "what comes behind an answer that waits waits too",
    "core",
    "control/answers.ts",
    "durable !== undefined || this.#waiting !== undefined",
    "durable !== undefined",
  ],
  [
    "what the kernel did not take is sent later, and nothing else",
    "core",
    "control/answers.ts",
    "this.#unsent[0] = bytes.subarray(taken);",
    "this.#unsent[0] = bytes;",
  ],
  [
    "a message that was cut goes with its connection",
    "core",
    "outbox/backlog.ts",
    'this.#discard(first, "not_connected");\n      slimFront',
    "slimFront",
  ],
  [
    "an instance sees nothing that was meant for its predecessor",
    "core",
    "instance.ts",
    "exited: () => this.outbox.close(),",
    "exited: () => {},",
  ],
  [
    "an instance socket serves nobody but its instance",
    "core",
    "port.ts",
    "if (!this.#options.admits(connection)) {",
    "if (false) {",
  ],
  [
    "whoever has the number of a dead process is nobody's kin",
    "core",
    "supervisor/kin.ts",
    "if (isOurs && (entry.session",
    "if ((entry.session",
  ],
  [
    "nobody is ended for what was recorded before the machine was started",
    "core",
    "supervisor/recovery.ts",
    "run.bootId === bootId",
    "run.bootId !== undefined",
  ],
  [
    "a change that the disk does not confirm is not answered with success",
    "core",
    "memory.ts",
    "for (const batch of batches) batch.error = error;",
    "",
  ],
  [
    "who has nothing of its own to bring to the disk waits for what is on its way",
    "core",
    "memory.ts",
    "if (this.#unsynced.length === 0) return this.#syncing;",
    "if (this.#unsynced.length === 0) return undefined;",
  ],
  [
    "a stream begins behind the answers that wait for the disk",
    "core",
    "control/answers.ts",
    "this.#held.length === 0 && this.#waitingCount === 0 && this.#unsent",
    "this.#held.length === 0 && this.#unsent",
  ],
  [
    "a follower gets the oldest lines first",
    "core",
    "output.ts",
    "const region = this.#regions.shift();",
    "const region = this.#regions.pop();",
  ],
  ["whoever follows events is woken by each", "core", "control/stream.ts", "else wake();", ""],
  [
    "output of which the disk took a part is offered again",
    "core",
    "output/spool.ts",
    "this.#records.splice(0, count)",
    "this.#records.splice(0)",
  ],
];

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "vo-broken-"));
  for (const part of ["src", "test", "package.json", "bunfig.toml", "tsconfig.json"]) {
    cpSync(join(ROOT, part), join(folder, part), { recursive: true });
  }
  symlinkSync(join(ROOT, "node_modules"), join(folder, "node_modules"));
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

test.each(RULES)(
  "A simulation notices when %s no more",
  async (_rule, simulation, file, before, after) => {
    const path = join(folder, "src", file);
    const text = readFileSync(path, "utf8");
    expect(text.split(before)).toHaveLength(2); // the rule stands where it is said to stand
    writeFileSync(path, text.replace(before, after));
    const run = Bun.spawn({
      cmd: [process.execPath, "test", `test/simulation/${simulation}.test.ts`],
      cwd: folder,
      env: { ...process.env, TEST_RUNS: "1", TEST_SEED: undefined },
      stdio: ["ignore", "ignore", "pipe"],
    });
    const said = await run.stderr.text();
    writeFileSync(path, text);
    expect(said).toMatch(/with TEST_SEED=\d+: /);
    expect(await run.exited).toBe(1);
  },
);
