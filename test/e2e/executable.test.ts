// The one executable: built as the README says, then daemon and CLI in turn, without Bun in PATH.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { scratch } from "../support/scratch.ts";

const root = join(import.meta.dir, "..", "..");
const folder = scratch("veecle-exe-");
const program = join(folder, "veecle-orchestrator");
const socket = join(folder, "control.socket");
const env = { PATH: "/usr/bin:/bin", XDG_RUNTIME_DIR: folder, HOME: folder };
let daemon: Bun.Subprocess<"ignore", "ignore" | "pipe", "pipe"> | undefined;

/** Runs the executable in a folder whose `bunfig.toml` and `.env` must not matter. */
async function cli(...words: string[]): Promise<{ out: string; problem: string; code: number }> {
  const child = Bun.spawn({
    cmd: [program, ...words],
    env: { ...env, VEECLE_ORCHESTRATOR_SOCKET: socket },
    cwd: folder,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, problem] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  return { out, problem, code: await child.exited };
}

beforeAll(async () => {
  const scripts = (await Bun.file(join(root, "package.json")).json()).scripts;
  const command = scripts.build.replace("dist/veecle-orchestrator", program);
  const build = Bun.spawn({
    cmd: ["sh", "-c", command.replace(/^bun /, `"${process.execPath}" `)],
    cwd: root,
    stdout: "ignore",
    stderr: "pipe",
  });
  const problem = await build.stderr.text();
  if ((await build.exited) !== 0) throw new Error(problem);
  writeFileSync(join(folder, "bunfig.toml"), 'preload = ["./intruder.ts"]\n');
  writeFileSync(join(folder, "intruder.ts"), 'throw new Error("ran a stranger\'s preload");\n');
  writeFileSync(join(folder, ".env"), "VEECLE_ORCHESTRATOR_LOG=nonsense-directive\n");
}, 240_000);

afterAll(async () => {
  daemon?.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});

test("the executable is daemon and CLI", async () => {
  expect(await cli("version")).toMatchObject({ code: 5, out: "" });
  daemon = Bun.spawn({
    cmd: [program, "daemon", "--control-socket", socket],
    env,
    cwd: folder,
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  const log = daemon.stderr.getReader();
  let said = "";
  while (!said.includes("listening socket=")) {
    const { done, value } = await log.read();
    if (done) throw new Error(`The daemon ended: ${said}`);
    said += Buffer.from(value).toString();
  }

  expect(await cli("version")).toEqual({ out: "server version: 0.1.0\n", problem: "", code: 0 });
  const added = await cli("runtime", "add", "/bin/cat", "--copy");
  expect(added.out).toMatch(/^added instance [0-9a-f-]{36} \(sent [0-9]+ bytes\)\n$/);
  const id = added.out.split(" ")[2] as string;
  const sleeper = (await cli("runtime", "add", "sleep")).out.trim().split(" ")[2] as string;
  expect((await cli("runtime", "start", id)).out).toBe(`started instance ${id}\n`);
  expect((await cli("link", "add", "--type", "a::B", "--to", sleeper)).out).toBe(
    `linked a::B to ${sleeper}\n`,
  );
  let list = "";
  while (!list.includes("exited (code 0)")) list = (await cli("runtime", "list")).out; // cat's input is empty
  expect(list).toContain("stopped");
  expect((await cli("runtime", "stop", sleeper)).code).toBe(1);
  const { instances } = JSON.parse((await cli("ps", "--json")).out);
  expect(instances.map((instance: { name: string }) => instance.name)).toEqual(["cat", "sleep"]);
  expect((await cli("completion", "words", "--", "stop", "s")).out).toBe("sleep\tstopped\n");
  expect((await cli("help", "ps")).out).toContain("  veecle-orchestrator ps -q\n");
  expect((await cli("runtime", "remove", id)).out).toBe(`removed instance ${id}\n`);
  expect((await cli("clear")).out).toBe("cleared orchestrator state\n");

  daemon.kill("SIGTERM");
  expect(await daemon.exited).toBe(0);
  expect(await cli("version")).toMatchObject({ code: 5, out: "" });
});

test("the executable is started by the existing orchestrator's options alone", async () => {
  for (const words of [
    ["--control-socket", socket, "--ipc-socket", "127.0.0.1:0"],
    ["--ipc-socket=127.0.0.1:0", `--control-socket=${socket}`],
    ["--telemetry-socket", "127.0.0.1:9", "--control-socket", socket],
  ]) {
    daemon = Bun.spawn({ cmd: [program, ...words], env, cwd: folder, stderr: "pipe" });
    for await (const bytes of daemon.stderr) {
      if (Buffer.from(bytes).includes("listening socket=")) break;
    }
    expect((await cli("version")).out).toBe("server version: 0.1.0\n");
    daemon.kill("SIGTERM");
    expect(await daemon.exited).toBe(0);
  }
  const bad = await cli("--ipc-socket", "nowhere");
  expect(bad.code).toBe(2);
  expect(bad.problem).toContain("it is not HOST:PORT");
});

test("the executable says what is wrong with the daemon's options", async () => {
  const bad = await cli("daemon", "--control-soket", "x");
  expect(bad.code).toBe(2);
  expect(bad.problem).toContain("--control-soket");
  expect((await cli("daemon", "--help")).out).toContain("--ipc-socket HOST:PORT");
});
