// Those who may not: another user, another machine, another process of the user, and files that are
// not what was uploaded (S3, S5, S8). What is counted must be exactly none.

import {
  chmodSync,
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { networkInterfaces } from "node:os";
import { join } from "node:path";

import { type Daemon, withDaemon } from "../support/daemon.ts";
import { type Control, Wire } from "../support/wire.ts";
import { demand, type Outcome } from "./outcome.ts";

/** A user who is nobody's friend. */
export const STRANGER = 65_534;

export const isRoot: boolean = process.getuid?.() === 0;

/** An address of this machine that is not loopback. */
export const elsewhere: string | undefined = Object.values(networkInterfaces())
  .flat()
  .find((one) => one?.family === "IPv4" && !one.internal)?.address;

const NOTHING_DONE: Outcome["figures"] = [];

function portOf({ address }: Daemon): number {
  return Number(/:(\d+)$/.exec(address)?.[1]);
}

/** The daemon holds this instance and nothing else, and has taken no request but ours. */
async function demandUntouched(daemon: Daemon, id: string): Promise<void> {
  const { runtimes } = await daemon.info();
  demand(Object.keys(runtimes).join() === id, "nothing was changed", Object.keys(runtimes));
  const audited = daemon.log.split("orchestrator::audit: ").length - 1;
  demand(audited === 1, "no change was asked for but our own", audited);
}

const QUIETLY = { env: { VEECLE_ORCHESTRATOR_LOG: "audit=info,control=info" } };

/** Another user of the machine asks over TCP on loopback. */
export async function otherUser(count: number): Promise<Outcome> {
  await withDaemon(
    async (daemon) => {
      const id = await daemon.add("/bin/true");
      const script =
        `for ((i = 0; i < ${count}; i++)); do exec 3<>/dev/tcp/127.0.0.1/${portOf(daemon)}; ` +
        `printf '"Clear"\\n' >&3; IFS= read -r -t 5 line <&3; echo "$line"; exec 3>&-; done`;
      const child = Bun.spawn({
        cmd: ["setpriv", `--reuid=${STRANGER}`, `--regid=${STRANGER}`, "--clear-groups", "bash", "-c", script],
        cwd: "/",
        env: { PATH: "/usr/bin:/bin" },
        stdio: ["ignore", "pipe", "inherit"],
      }); // prettier-ignore
      const answers = (await child.stdout.text()).trimEnd().split("\n");
      const refusals = answers.filter((line) => line.includes(`and you are user ${STRANGER}`));
      demand(refusals.length === count, `${count} are refused`, refusals.length);
      demand(answers.length === count, "nothing else is answered", answers.length);
      await demandUntouched(daemon, id);
    },
    { ...QUIETLY, control: "127.0.0.1:0", args: ["--ephemeral"] },
  );
  return { work: `${count} connections of another user, 0 served`, figures: NOTHING_DONE };
}

/** What is sent before a request instead of the token. */
const GUESSES: readonly ((token: string) => string)[] = [
  () => "",
  () => '{"Token":""}\n',
  (token) => `{"Token":"${token}x"}\n`,
  (token) => `{"Token":"${token.slice(0, -1)}"}\n`,
  (token) => `{"Token":"${token.toUpperCase()}"}\n`,
  (token) => `{"Token":"${token} "}\n`,
  (token) => `{"Token":"${token}\\u0000"}\n`,
  (token) => `{"Token":["${token}"]}\n`,
  (token) => `{"Token":{"${token}":"${token}"}}\n`,
  (token) => `{"token":"${token}"}\n`,
  (token) => `{"Token":"${token}","Clear":null}\n`,
  (token) => `{"Token":"x","Token":"${token}"}\n`,
  (token) => `"${token}"\n`,
  (token) => `{"Token":"x"}\n{"Token":"${token}"}\n`,
  (token) => `"Version"\n{"Token":"${token}"}\n`,
  () => `{"Token":"${"x".repeat(100_000)}"}\n`,
  () => `{"Token":"${crypto.randomUUID()}"}\n`,
  () => '{"Token":null}\n',
];

/** How many clients are there at once. */
const AT_ONCE = 20;

/** Somebody from another address asks, without a token or with one that is wrong. */
export async function otherMachine(count: number, address: string): Promise<Outcome> {
  let folder = "";
  const token = Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString("base64url");
  const file = join("/tmp", `vo-token-${crypto.randomUUID()}`);
  writeFileSync(file, `${token}\n`, { mode: 0o600 });
  try {
    await withDaemon(
      async (daemon) => {
        folder = daemon.folder;
        const id = await daemon.add("/bin/true");
        const target = `${address}:${portOf(daemon)}`;
        const guess = async (index: number): Promise<void> => {
          const wire = await Wire.connect(target);
          const before = (GUESSES[index % GUESSES.length] as (typeof GUESSES)[number])(token);
          wire.send(`${before}"Clear"\n{"Remove":"${id}"}\n`);
          const answers = (await wire.rest()).toString();
          wire.close();
          const isRefusal = /^\{"Err":\["Cannot serve this connection: [^"]*"\]\}\n$/.test(answers);
          demand(isRefusal, `guess ${index % GUESSES.length} is refused once`, answers);
        };
        for (let done = 0; done < count; done += AT_ONCE) {
          const most = Math.min(AT_ONCE, count - done);
          await Promise.all(Array.from({ length: most }, (_, index) => guess(done + index)));
        }
        demand(!daemon.log.includes(token), "the token stands nowhere in the log");
        await demandUntouched(daemon, id);
        const wire = await Wire.connect(target);
        wire.send(`{"Token":"${token}"}\n"Version"\n`);
        wire.finish();
        const answers = (await wire.rest()).toString();
        demand(answers === '{"Ok":null}\n{"Ok":"0.1.0"}\n', "the right one is served", answers);
      },
      { ...QUIETLY, control: "0.0.0.0:0", args: ["--ephemeral", "--token-file", file] },
    );
  } finally {
    rmSync(file, { force: true });
  }
  demand(!existsSync(folder), "nothing is left");
  return { work: `${count} calls without the token, 0 carried out`, figures: NOTHING_DONE };
}

/** Another process of the user connects to the socket of an instance, before, beside and after it. */
export async function intruder(count: number): Promise<Outcome> {
  await withDaemon(async (daemon) => {
    const [puppet, idle] = [await daemon.puppet(), await daemon.puppet()];
    const own = await puppet.speak("native");
    const names = readdirSync(daemon.runFolder, { recursive: true, encoding: "utf8" });
    const path = (id: string): string =>
      join(daemon.runFolder, names.find((name) => name.includes(id)) as string);
    const bytes = '{"Storable":{"type_name":"a::T","value":"1"}}\n{"ControlRequest":{"StopRuntime":{"id":"x"}}}\n'; // prettier-ignore
    for (let attempt = 0; attempt < count; attempt++) {
      const wire = await Wire.connect(path((attempt % 2 === 0 ? puppet : idle).id)).catch(() => undefined); // prettier-ignore
      wire?.send(bytes);
      const said = (await wire?.rest())?.length ?? 0; // perhaps reset before it was connected
      demand(said === 0, "an intruder is told nothing", said);
    }
    demand(!own.isEnded, "the instance's own connection is still there");
    for (const { id } of [puppet, idle]) {
      const { received } = (await daemon.runtime(id)).messages;
      demand(received === 0, "nothing of it is read", received);
    }
    await idle.speak("veecle");
  });
  return { work: `${count} connections of intruders, 0 accepted`, figures: NOTHING_DONE };
}

const EVIL = (mark: string): string => `#!/bin/sh\necho evil >> '${mark}'\n`;

/** Where an upload is said to come from: no folder of ours may follow from it. */
const ORIGINS = [
  "../../../../etc/passwd",
  "..",
  "/",
  "/../..",
  "a/../../b",
  "./../binaries/x",
  "//etc//passwd",
  "..\\..\\x",
  "%2e%2e%2f",
  "\u202e/../x",
  "a\n../b",
  "~/x",
  "-rf",
  "$(touch x)",
];

/** Fields that are refused, whatever the bytes are. */
const REFUSED: readonly object[] = [
  { path: "a\0b" },
  { path: "/a/../\0" },
  { id: "../../x" },
  { id: "..%2f" },
  { name: "../x" },
  { name: "a/b" },
  { name: "a\0" },
  { name: ".." },
  { hash: "../../x" },
  { hash: [..."../../../../etc/passwd".padEnd(32, "/")].map((letter) => letter.charCodeAt(0) + 256) },
  { cwd: "../x" },
  { path: "\ud800" },
]; // prettier-ignore

/** Uploads with names that lead elsewhere, and files that are no longer what was uploaded. */
export async function escapes(count: number): Promise<Outcome> {
  await withDaemon(
    async (daemon) => {
      const control = await daemon.control("veecle");
      const folder = join(daemon.stateFolder, "veecle-orchestrator");
      const mark = join(daemon.folder, "mark");
      const victim = join(daemon.folder, "victim");
      writeFileSync(victim, EVIL(mark), { mode: 0o700 });
      const outside = (): string => [daemon.folder, daemon.stateFolder, "/"].map((path) => readdirSync(path).toSorted().join()).join(); // prettier-ignore
      const before = outside();
      for (let round = 0; round < count; round++) {
        const bytes = Buffer.from(`#!/bin/sh\nexec true ${round}\n`);
        const kind = KINDS[round % KINDS.length] as (typeof KINDS)[number];
        await kind({ daemon, control, bytes, round, victim, mark });
        const strange = uploadsOf(daemon).filter((path) => !/\/[0-9a-f]{64}$/.test(path));
        demand(strange.length === 0, "every upload stands under its hash", strange);
      }
      demand(outside() === before, "nothing was made elsewhere", outside());
      demand(!existsSync(mark), "nothing else was run");
      demand(readFileSync(victim, "utf8") === EVIL(mark), "nothing else was written to");
      demand(uploadsOf(daemon).length === 0, "nothing is left", uploadsOf(daemon));
      demand(existsSync(folder) || existsSync(daemon.stateFolder), "the state is there");
    },
    { env: { VEECLE_ORCHESTRATOR_LOG: "control=info" } },
  );
  return { work: `${count} escapes, swaps and edits, 0 of another file`, figures: NOTHING_DONE };
}

interface Round {
  readonly daemon: Daemon;
  readonly control: Control;
  readonly bytes: Buffer;
  readonly round: number;
  readonly victim: string;
  readonly mark: string;
}

function uploadsOf(daemon: Daemon): string[] {
  const names = readdirSync(daemon.stateFolder, { recursive: true, encoding: "utf8" });
  return names.filter((path) => path.includes("binaries/"));
}

function hashOf(bytes: Uint8Array): Buffer {
  return new Bun.CryptoHasher("sha256").update(bytes).digest() as Buffer;
}

/** An upload with further fields; undefined if it is refused at once or at its end. */
async function upload({ daemon, bytes }: Round, fields: object = {}): Promise<string | undefined> {
  const id = crypto.randomUUID();
  const request = { id, length: bytes.length, hash: [...hashOf(bytes)], ...fields };
  const control = await daemon.control("veecle");
  control.send({ AddWithBinary: request });
  control.wire.send(bytes);
  control.wire.finish();
  const answers = (await control.wire.rest()).toString().trimEnd().split("\n");
  control.wire.close();
  return answers.join() === '{"Ok":null},{"Ok":null}' ? id : undefined;
}

async function started({ control }: Round, id: string): Promise<boolean> {
  return "Ok" in (await control.ask({ Start: { id } }));
}

/** Lets an upload be changed behind the daemon's back; it must not be run then. */
async function changed(round: Round, change: (path: string) => void): Promise<void> {
  const { daemon, control } = round;
  const id = await upload(round);
  demand(id !== undefined, "an upload is taken");
  const { binary } = await daemon.runtime(id);
  change(binary);
  demand(!(await started(round, id)), "what is no longer what was uploaded is not started");
  await control.ok({ Remove: id });
}

const KINDS: readonly ((round: Round) => Promise<void>)[] = [
  async (round) => {
    const { daemon, control } = round;
    const id = await upload(round, { path: ORIGINS[round.round % ORIGINS.length] });
    demand(id !== undefined, "where it comes from is of no interest");
    const { binary, hash } = await daemon.runtime(id);
    demand(binary.endsWith(`/binaries/${hash}`), "it stands under its hash", binary);
    await control.ok({ Remove: id });
  },
  async (round) => {
    const id = await upload(round, REFUSED[round.round % REFUSED.length]);
    demand(id === undefined, "a field that leads elsewhere is refused", REFUSED[round.round % REFUSED.length]); // prettier-ignore
  },
  (round) =>
    changed(round, (path) => {
      rmSync(path);
      symlinkSync(round.victim, path);
    }),
  (round) =>
    changed(round, (path) => {
      chmodSync(path, 0o700);
      writeFileSync(path, EVIL(round.mark));
      chmodSync(path, 0o500);
    }),
  (round) =>
    changed(round, (path) => {
      const other = `${round.victim}-${round.round}`;
      writeFileSync(other, EVIL(round.mark), { mode: 0o500 });
      renameSync(other, path);
    }),
  async (round) => {
    // A link that waits for the upload under its name: it is replaced, and not followed.
    const { daemon, control, bytes, victim } = round;
    const first = await upload(round);
    const { binary } = await daemon.runtime(first as string);
    await control.ok({ Remove: first });
    symlinkSync(victim, binary);
    const id = await upload(round);
    demand(id !== undefined, "an upload is taken");
    demand(lstatSync(binary).isFile(), "the link is gone");
    demand(readFileSync(binary).equals(bytes), "its bytes are there");
    demand(await started(round, id), "it runs");
    await daemon.ended(id);
    await control.ok({ Remove: id });
  },
];
