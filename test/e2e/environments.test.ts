// R9: where a daemon cannot start, it says so in one message and leaves nothing.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";

import {
  BROKEN_ENVIRONMENTS,
  POOR_ENVIRONMENTS,
  refuse,
  serve,
} from "../experiments/environments.ts";
import { Launched, withFolder } from "../support/daemon.ts";

setDefaultTimeout(60_000);

/** A bound of sanity: machines that run tests are loaded. The soak demands 1 s. */
const SANE_MS = 10_000;

describe("A start is refused in one message, with what to try next, for", () => {
  test.each(BROKEN_ENVIRONMENTS)("%s (R9)", async (name) => {
    const ms = await refuse(name);
    if (typeof ms === "string") console.warn(`not tried: ${ms}`);
    else expect(ms).toBeLessThan(SANE_MS);
  });
});

describe("A daemon serves in spite of", () => {
  test.each(POOR_ENVIRONMENTS)("%s", async (name) => {
    expect(await serve(name)).toBeLessThan(SANE_MS);
  });
});

const NAMESPACE = ["unshare", "--fork", "--pid", "--mount-proc"];

function mayMakeNamespaces(): boolean {
  try {
    return Bun.spawnSync([...NAMESPACE, "true"]).success;
  } catch {
    return false; // there is no such program
  }
}

test.skipIf(!mayMakeNamespaces())("A daemon that is the first process of a container says so", () =>
  withFolder(async (folder) => {
    const env = { XDG_RUNTIME_DIR: folder };
    const unshare = new Launched(["--ephemeral"], env, NAMESPACE);
    const control = await unshare.control(join(folder, "veecle-orchestrator.socket"));
    control.wire.close();
    const { pid } = unshare.process;
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8");
    process.kill(Number(children), "SIGTERM");
    const { code, stderr } = await unshare.end();
    expect(code).toBe(0);
    expect(stderr).toContain("is not reaped: this is the first process of a container");
  }),
);

test("A start that came to nothing is not taken for a daemon that was killed", () =>
  withFolder(async (folder, launch) => {
    const state = ["--state-dir", join(folder, "state")];
    const path = join(folder, "veecle-orchestrator.socket");
    const first = launch(state);
    (await first.control(path)).wire.close();
    await first.end("SIGTERM");
    const other = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const taken = ["--control-socket", `127.0.0.1:${other.port}`];
    expect(await launch([...state, ...taken]).end()).toMatchObject({ code: 1 });
    other.stop(true);
    const second = launch(state);
    const control = await second.control(path);
    await control.ok({ Events: {} });
    const rest = control.wire.rest();
    await second.end("SIGTERM");
    const starts = (await rest).toString("latin1").matchAll(/"before":"(\w+)"/g);
    expect([...starts].map(([, before]) => before)).toEqual(["none", "stopped"]);
  }));
