// What another user of the machine can reach of a daemon, and where the secrets of an instance stand.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, lstatSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { type Daemon, withDaemon } from "../support/daemon.ts";
import { piped } from "../support/screen.ts";
import { until } from "../support/wire.ts";

setDefaultTimeout(60_000);

/** A user who is nobody's friend. */
const STRANGER = 65_534;

/** Whatever of these paths another user may read, write, list or enter, as the kernel says. */
async function openTo(uid: number, paths: readonly string[]): Promise<string[]> {
  const script =
    'for path; do if [ -r "$path" ] || [ -w "$path" ] || [ -x "$path" ]; then echo "$path"; fi; done';
  const child = Bun.spawn({
    cmd: ["sh", "-c", script, "sh", ...paths],
    uid,
    gid: uid,
    cwd: "/",
    env: { PATH: "/usr/bin:/bin" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const out = await child.stdout.text();
  return out.split("\n").filter((line) => line !== "");
}

/** Everything that a daemon has made, by folder and by file. */
function madeBy(daemon: Daemon): string[] {
  const within = (folder: string): string[] =>
    readdirSync(folder, { recursive: true, encoding: "utf8" }).map((name) => join(folder, name));
  return [...within(daemon.runFolder), ...within(daemon.stateFolder)];
}

describe("another user of the machine", () => {
  test.each(["000", "002", "022", "077"])(
    "reaches nothing of a daemon that was started under umask %s (S1)",
    (mask) =>
      withDaemon(
        async (daemon) => {
          const program = daemon.script("#!/bin/sh\necho secret\nexec sleep 1000\n");
          const address = ["--socket", daemon.address];
          const added = await piped(
            ["runtime", "add", program, "--copy", "--name", "chatty", ...address],
            {},
          );
          expect(added).toMatchObject({ code: 0 });
          expect(await piped(["start", "chatty", ...address], {})).toMatchObject({ code: 0 });
          const has = (what: RegExp) => (): boolean =>
            madeBy(daemon).some((path) => what.test(path));
          await until("there are a state, output and an upload", () =>
            [/state\.db$/, /output\/.*\/.+/, /binaries\/.+/].every((what) => has(what)()),
          );

          const made = madeBy(daemon);
          const modes = made.map((path) => [path, lstatSync(path).mode & 0o077]);
          expect(modes.filter(([, mode]) => mode !== 0)).toEqual([]);
          if (process.getuid?.() !== 0) return;
          // The folders around are opened, so that every path has to defend itself.
          for (const path of [daemon.folder, daemon.runFolder, daemon.stateFolder]) {
            chmodSync(path, 0o755);
          }
          const control = join(daemon.folder, "open");
          writeFileSync(control, "");
          chmodSync(control, 0o644);
          expect(await openTo(STRANGER, [...made, control])).toEqual([control]);
        },
        { limits: `umask ${mask}` },
      ),
  );
});

test("a secret of an --env-file stands in no list, log, event, or argument of ours (S4)", () =>
  withDaemon(
    async (daemon) => {
      const secret = "xyzzy-4711";
      const file = join(daemon.folder, "secrets.env");
      writeFileSync(file, `PASSWORD=${secret}\n`, { mode: 0o600 });
      const run = async (...words: string[]): Promise<string> => {
        const { code, out, err } = await piped([...words, "--socket", daemon.address], {});
        expect(code).toBe(0);
        return out + err;
      };
      const program = daemon.script("#!/bin/sh\nexec sleep 1000\n");
      const told = [
        await run("runtime", "add", program, "--name", "safe", "--env-file", file),
        await run("start", "safe"),
        await run("ps", "--json"),
        await run("runtime", "list", "--json"),
        await run("status", "safe"),
        await run("status", "safe", "--json"),
        await run("why", "safe"),
        await run("events", "--json"),
        await run("logs", "safe"),
        await run("stop", "safe"),
        await run("start", "safe"),
        JSON.stringify(await daemon.info()),
        daemon.log,
        readFileSync(`/proc/${daemon.pid}/cmdline`, "utf8"),
        readFileSync(`/proc/${daemon.pid}/environ`, "utf8"),
        ...daemon.processes().map(({ pid }) => readFileSync(`/proc/${pid}/cmdline`, "utf8")),
      ];
      expect(told.join("\n")).toContain("PASSWORD"); // the name is told
      expect(told.filter((text) => text.includes(secret))).toEqual([]);
      const [instance] = daemon.processes();
      expect(readFileSync(`/proc/${instance?.pid}/environ`, "utf8")).toContain(secret);
    },
    { env: { VEECLE_ORCHESTRATOR_LOG: "trace" } },
  ));
