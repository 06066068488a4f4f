import { describe, expect, test } from "bun:test";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { offer } from "../../src/cli/completion.ts";
import type { Info } from "../../src/protocol/info.ts";
import { FakeDaemon } from "../support/fake-daemon.ts";
import { friendly, INFO, run } from "../support/typist.ts";

async function words(line: string): Promise<string[]> {
  const offers = await offer(line.split(" "), async () => INFO as unknown as Info);
  return offers.words.map(([word]) => word);
}

describe("offer()", () => {
  test.each([
    ["re", ["restart"]],
    ["sta", ["status", "start"]],
    ["run", ["runtime"]],
    ["he", ["help"]],
    ["runtime ", ["add", "start", "stop", "remove", "list", "stdout"]],
    ["runtime st", ["start", "stop", "stdout"]],
    ["link r", ["remove"]],
    ["help link ", ["add", "remove", "list"]],
    ["help li", ["link"]],
    ["stop ", ["ping", "pong"]],
    ["stop po", ["pong"]],
    ["stop ping ", ["pong"]],
    ["stop --timeout 5s p", ["ping", "pong"]],
    ["runtime start ", ["ping", "pong"]],
    ["runtime start ping ", []],
    ["ps ", []],
    ["stop --ti", ["--timeout"]],
    ["stop --all --a", []],
    ["runtime add --env A=1 --env", ["--env", "--env-file"]],
    ["stop --priority ", ["high", "normal", "low"]],
    ["stop --priority=h", ["--priority=high"]],
    ["link add --type a", ["a::Ping"]],
    ["link add --to ", ["ping", "pong"]],
    [
      "wait ping --for ",
      ["running", "connected", "stopped", "exited", "failed", "message:", "message:a::Ping"],
    ],
    ["wait ping --for message:", ["message:", "message:a::Ping"]],
    ["daemon --ephe", ["--ephemeral"]],
    ["daemon --tls-cert x --tls-c", ["--tls-client-ca"]],
    ["daemon ", []],
    ["help dae", ["daemon"]],
    ["logs --stream ", ["stdout", "stderr"]],
    ["runtime add ", []],
    ["runtime add ./x -- ", []],
    ["completion ", ["bash", "zsh", "fish"]],
    ["nonsense ", []],
  ])("%s", async (line, expected) => {
    expect(await words(line)).toEqual(expected);
  });

  test("every option of a command is offered, with what it means", async () => {
    const offers = await offer(["ps", "-"], async () => undefined);
    expect(offers.words).toContainEqual(["--quiet", "print ids only"]);
    expect(offers.words.every(([, text]) => text !== "")).toBe(true);
  });

  test.each([
    ["runtime add ", true],
    ["runtime add ./x --cwd ", true],
    ["runtime add ./x --cwd=", true],
    ["runtime add ./x --env-file ", true],
    ["runtime add ./x -- ", true],
    ["ps --socket ", true],
    ["--socket ", true],
    ["ps --tls-ca ", true],
    ["up ", true],
    ["token new ", true],
    ["daemon --control-socket ", true],
    ["daemon --state-dir ", true],
    ["daemon --tls-cert x --tls-key ", true],
    ["daemon --ipc-socket ", false],
    ["daemon --ephemeral ", false],
    ["daemon ", false],
    ["runtime add ./x ", false],
    ["runtime add ./x --name ", false],
    ["runtime add ./x --env ", false],
    ["runtime add ./x --env=", false],
    ["runtime add ./x --id ", false],
    ["runtime add ./x --stop-grace ", false],
    ["logs --since ", false],
    ["logs --grep ", false],
    ["logs -n ", false],
    ["link add --queue ", false],
    ["stop ", false],
    ["stop nobody", false],
    ["ps ", false],
    ["st", false],
    ["nonsense ", false],
    ["", false],
  ])("paths may stand behind %p: %p", async (line, expected) => {
    const { files } = await offer(line.split(" "), async () => INFO as unknown as Info);
    expect(files).toBe(expected);
  });
});

describe("completion", () => {
  test("asks the daemon that the words name, and no other", async () => {
    using daemon = friendly([]);
    const equals = ["completion", "words", "--", `--socket=${daemon.path}`, "stop", "pi"];
    expect((await run(equals)).out).toBe("ping\trunning\n");
    const asked = ["completion", "words", "--", "--socket", daemon.path, "stop", "pi"];
    const named = await run([...asked, "--socket", "/nonexistent/socket"]);
    expect(named).toEqual({ code: 0, out: "", err: "" }); // the last one is among the words
    expect(await run(asked)).toEqual({ code: 0, out: "ping\trunning\n", err: "" });
  });

  test("offers nothing, and says nothing, if no daemon answers", async () => {
    const ran = await run(["completion", "words", "--socket", "/nonexistent/s", "--", "stop", ""]);
    expect(ran).toEqual({ code: 3, out: "", err: "" });
    using silent = new FakeDaemon(() => {});
    const late = await run(["completion", "words", "--socket", silent.path, "--", "stop", ""]);
    expect(late).toEqual({ code: 3, out: "", err: "" });
  });

  test("leaves paths to the shell, and tells where none can stand", async () => {
    expect(await run(["completion", "words", "--", "up", ""])).toEqual({
      code: 0,
      out: "",
      err: "",
    });
    expect((await run(["completion", "words", "--", "logs", "--since", ""])).code).toBe(3);
    expect((await run(["completion", "words", "--json", "--", "up", ""])).out).toBe(
      '{"words":[],"files":true}\n',
    );
  });

  test.each(["bash", "zsh", "fish"])("prints a script for %s", async (shell) => {
    const { code, out } = await run(["completion", shell]);
    expect(code).toBe(0);
    expect(out).toContain("completion words -- ");
  });

  test("in bash offers names, and what stands behind a colon", async () => {
    using daemon = friendly([]);
    const press = (line: string): Promise<string[]> => pressTab(daemon.path, line);
    expect(await press("veecle-orchestrator stop ")).toEqual(["ping", "pong"]);
    expect(await press("veecle-orchestrator sto")).toEqual(["stop"]);
    expect(await press("veecle-orchestrator link add --type a::P")).toEqual(["Ping"]);
  });

  test("in bash puts no name into the line that the shell would carry out, and none in two", async () => {
    const names = ["a::T<U>", "b$(touch x)", "c'; reboot", "d\n-rf", "e\tf", "\u001b[31m"];
    const routes = names.map((type_name) => ({
      ...(INFO as unknown as Info).routes[0],
      type_name,
    }));
    using daemon = new FakeDaemon((_, connection) => connection.ok({ ...INFO, routes }));
    expect(await pressTab(daemon.path, "veecle-orchestrator link add --type ")).toEqual([
      String.raw`a::T\<U\>`,
      String.raw`b\$\(touch\ x\)`,
      String.raw`c\'\;\ reboot`,
    ]);
  });
});

/** What bash offers for a line when Tab is pressed behind it. */
async function pressTab(socket: string, line: string): Promise<string[]> {
  const folder = mkdtempSync(join(tmpdir(), "completion-"));
  try {
    const cli = join(import.meta.dir, "../../src/cli.ts");
    const program = join(folder, "veecle-orchestrator");
    writeFileSync(program, `#!/bin/sh\nexec '${process.execPath}' '${cli}' "$@"\n`);
    chmodSync(program, 0o700);
    const script = `source <(veecle-orchestrator completion bash)
      COMP_LINE=$1 COMP_POINT=\${#1}
      _veecle_orchestrator
      printf '%s\\n' "\${COMPREPLY[@]}"`;
    const child = Bun.spawn({
      cmd: ["bash", "-c", script, "bash", line],
      env: {
        PATH: `${folder}:${process.env["PATH"] ?? ""}`,
        VEECLE_ORCHESTRATOR_SOCKET: socket,
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    expect(await child.stderr.text()).toBe("");
    return (await child.stdout.text()).trimEnd().split("\n");
  } finally {
    rmSync(folder, { recursive: true });
  }
}
