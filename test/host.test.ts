import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { OrchestratorError } from "../src/errors.ts";
import { type SpawnRequest, systemHost } from "../src/host.ts";
import type { Exit } from "../src/model.ts";
import { readProcess } from "../src/host/processes.ts";
import { isAlive, Nursery } from "./support/processes.ts";
import { within } from "./support/wire.ts";

setDefaultTimeout(30_000);

const nursery = new Nursery();
const PATH = process.env["PATH"] ?? "/usr/bin:/bin";

/** Runs a program to its end. */
async function run(
  request: Pick<SpawnRequest, "path"> & Partial<SpawnRequest>,
): Promise<{ exit: Exit; output: string }> {
  const host = systemHost((error) => {
    throw error;
  });
  const exited = Promise.withResolvers<Exit>();
  const ended = Promise.withResolvers<void>();
  let output = "";
  host.spawn({
    env: { PATH },
    onExit: exited.resolve,
    onOutput: (_, chunk) => {
      output += Buffer.from(chunk).toString();
      return undefined;
    },
    onOutputEnd: ended.resolve,
    ...request,
  });
  await within("the end of the output", ended.promise);
  return { exit: await within("the exit", exited.promise), output };
}

describe("Host.spawn()", () => {
  test("hands on arguments as they are, and runs in the working folder", async () => {
    const args = ["-c", 'pwd; printf "[%s]" "$@"', "sh", "a b", "", "$HOME", "é\n"];
    const { output } = await run({ path: "sh", args, cwd: "/usr/bin" });
    expect(output).toBe("/usr/bin\n[a b][][$HOME][é\n]");
  });

  test("gives a program pipes: it can open /dev/stdout and /dev/stderr", async () => {
    const script = "readlink /proc/$$/fd/1 | cut -d: -f1; echo a >/dev/stdout; echo b >/dev/stderr";
    const { output } = await run({ path: "sh", args: ["-c", script] });
    expect(output.split("\n").sort()).toEqual(["", "a", "b", "pipe"]);
  });

  test.skipIf(process.getuid?.() !== 0)(
    "lets a program that has become another user open /dev/stdout and /dev/stderr",
    async () => {
      const script = "echo a >/dev/stdout; echo b >/dev/stderr; echo c | tee /dev/stderr";
      const args = ["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script];
      const { output } = await run({ path: "setpriv", args });
      expect(output.split("\n").sort()).toEqual(["", "a", "b", "c", "c"]);
    },
  );

  test("takes what Bun has where there are no pipes", async () => {
    const program = join(import.meta.dir, "fixtures/pipeless.ts");
    const { output } = await run({ path: process.execPath, args: [program] });
    expect(output).toBe("stdout: socket\nstderr: complaint\n");
  });

  test("refuses a start without descriptors, and leaves none open", async () => {
    const program = join(import.meta.dir, "fixtures/refused.ts");
    const args = ["-c", 'ulimit -n 64; exec "$@"', "sh", process.execPath, program];
    const told = JSON.parse((await run({ path: "sh", args })).output) as string[];
    expect(told.length).toBeGreaterThan(3);
    expect(new Set(told)).toEqual(new Set(["true,true"]));
  });

  test("says that there are too many processes", async () => {
    const program = join(import.meta.dir, "fixtures/crowded.ts");
    const { output } = await run({ path: process.execPath, args: [program] });
    expect(output).toBe('Cannot run "/bin/true": this user may have no more processes');
  });

  test("tells when the process began", () => {
    const { pid, startTicks } = nursery.run("sleep", "1000");
    expect(readProcess(pid)?.startTicks).toBe(startTicks as number);
    expect(startTicks).toBeGreaterThan(0);
  });

  test("tells when the process began as soon as there is a way to look", async () => {
    const program = join(import.meta.dir, "fixtures/exhausted.ts");
    const args = ["-c", 'ulimit -n 64; exec "$@"', "sh", process.execPath, program];
    expect((await run({ path: "sh", args })).output).toBe("false,true");
  });

  test.each([
    ["missing", "ENOENT"],
    ["file", "it is not a folder"],
    ["file/below", "ENOTDIR"],
  ])("says what is wrong with the working folder %s", async (name, reason) => {
    writeFileSync(join(nursery.folder, "file"), "");
    const cwd = join(nursery.folder, name);
    const error = await run({ path: "true", cwd }).catch((fault: unknown) => fault);
    expect(error).toBeInstanceOf(OrchestratorError);
    const { code, message, cause } = error as OrchestratorError & { cause: Error };
    expect([code, message, cause.message]).toEqual([
      "cannot_run",
      'Cannot run "true"',
      `Cannot enter the working folder ${JSON.stringify(cwd)}`,
    ]);
    expect((cause.cause as Error).message).toContain(reason);
  });

  test.skipIf(process.getuid?.() === 0)("says that a working folder is closed to us", async () => {
    const cwd = join(nursery.folder, "closed");
    mkdirSync(cwd);
    chmodSync(cwd, 0o000);
    const error = await run({ path: "true", cwd }).catch((fault: unknown) => fault);
    chmodSync(cwd, 0o700);
    const { cause } = (error as { cause: Error }).cause;
    expect((cause as Error).message).toContain("EACCES");
  });

  test.each([
    ["exit 0", { code: 0, signal: undefined }],
    ["exit 3", { code: 3, signal: undefined }],
    ["kill -s KILL $$", { code: undefined, signal: "SIGKILL" }],
    ["kill -s TERM $$", { code: undefined, signal: "SIGTERM" }],
    ["ulimit -c 0; kill -s ABRT $$", { code: undefined, signal: "SIGABRT" }],
  ])("R10: tells the end by %j", async (script, exit) => {
    expect((await run({ path: "sh", args: ["-c", script] })).exit).toEqual(exit);
  });

  test("R10: notices a hundred exits at once, and leaves no zombie", async () => {
    const runs = Array.from({ length: 100 }, (_, i) => nursery.run("sh", "-c", `exit ${i}`));
    const exits = await within("all exits", Promise.all(runs.map(({ exit }) => exit)), 20_000);
    expect(exits.map(({ code }) => code)).toEqual(runs.map((_, i) => i));
    expect(runs.filter(({ pid }) => readProcess(pid)?.parent === process.pid)).toEqual([]);
  });
});

describe("Host.signalGroup()", () => {
  test("asks with 0, signals otherwise, and tells when there is nobody", async () => {
    const { host } = nursery;
    const { pid, exit } = nursery.run("sleep", "1000");
    expect(host.signalGroup(pid, 0)).toBe(true);
    expect(isAlive(pid)).toBe(true);
    expect(host.signalGroup(pid, "SIGTERM")).toBe(true);
    expect((await exit).signal).toBe("SIGTERM");
    expect(host.signalGroup(pid, 0)).toBe(false);
  });
});
