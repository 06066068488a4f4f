// R6: a disk that is full, with everything of the daemon on it, while messages flow.

import { createHash } from "node:crypto";
import { readdirSync } from "node:fs";
import { join } from "node:path";

import type { Info } from "../../src/protocol/info.ts";
import { type Daemon, Launched, withDaemon } from "../support/daemon.ts";
import { Disk, NO_DISK } from "../support/disk.ts";
import { type Answer, frame, until } from "../support/wire.ts";
import { compare, Group, type Measure } from "./group.ts";
import { demand, milliseconds, multiple, type Outcome, percentile, share } from "./outcome.ts";

/** Holds the state, its log and some output, and is full soon: what the guarantee names. */
const DISK_BYTES = 2 ** 20;
/** Changes in one measure: messages have the rest of the machine, and events stay fewer than the disk holds. */
const CHANGES = 15;
/** Instances that are there before, to be started, linked and removed while the disk is full. */
const SPARES = 6;
/** Instances with which the small disk has room left. */
const MOST = 20;
const PROGRAM = "#!/bin/sh\nexec sleep 1000\n";
const PRINTER = `#!/bin/sh
n=0
while :; do echo "line $n ${"x".repeat(200)}"; n=$((n + 1)); sleep 0.02; done
`;

/** What was acknowledged of an instance. */
interface Known {
  readonly name: string;
  isWanted: boolean;
  isLinked: boolean;
}

const KINDS = ["add", "link", "start", "upload", "remove"] as const;
type Kind = (typeof KINDS)[number];
/** Others may go on as long as they fit into room that the state has already. */
const NEED_ROOM: readonly Kind[] = ["add", "upload"];

/** One that asks for changes, one at a time, and remembers which were acknowledged. */
class Changer {
  readonly #daemon: Daemon;
  readonly #program: string;
  /** Of everything that it has added, also before. */
  readonly known: Map<string, Known> = new Map();
  readonly refused: Record<Kind, number> = { add: 0, link: 0, start: 0, upload: 0, remove: 0 };
  readonly answers: number[] = [];
  acknowledged = 0;
  #uploads = 0;

  constructor(daemon: Daemon, program: string) {
    this.#daemon = daemon;
    this.#program = program;
  }

  /**
   * Asks for one change of a kind, if there is an instance left for it. A refusal must say that the
   * disk is full, and then it must be.
   */
  async change(kind: Kind, isFull: boolean): Promise<boolean> {
    const id = this.#choose(kind);
    if (id === undefined) return true;
    const asked = performance.now();
    const answer = await this.#ask(kind, id);
    this.answers.push(performance.now() - asked);
    if (answer.Err !== undefined) {
      const chain = answer.Err.join(": ");
      demand(isFull && /the disk is full/.test(chain), `${kind} tells of a full disk`, answer);
      demand(!/\n| at /.test(chain), "It is one clear error", answer);
      this.refused[kind]++;
      if (kind === "start") await this.#daemon.ended(id);
      return false;
    }
    this.acknowledged++;
    if (kind === "remove") this.known.delete(id);
    else if (kind === "link") (this.known.get(id) as Known).isLinked = true;
    else if (kind === "start") (this.known.get(id) as Known).isWanted = true;
    else this.known.set(id, { name: nameOf(id), isWanted: false, isLinked: false });
    return true;
  }

  /** Brings everything back to the spares that it begins with. */
  async reset(): Promise<void> {
    for (const [id, { isWanted }] of this.known) {
      if (isWanted) await this.#daemon.ok({ Stop: id });
      await this.#daemon.ok({ Remove: id });
      this.known.delete(id);
    }
    for (let i = 0; i < SPARES; i++) await this.change("add", false);
  }

  /** What is there and was not acknowledged, or is not there and was. */
  faults({ runtimes, routes }: Info): unknown[] {
    const found = new Map<string, Known>();
    for (const [id, { name, running }] of Object.entries(runtimes)) {
      if (name !== nameOf(id)) continue; // not one of ours
      const isLinked = routes.some(({ type_name, to }) => type_name === "spare" && to === id);
      found.set(id, { name, isWanted: running, isLinked });
    }
    return [...new Set([...found.keys(), ...this.known.keys()])].flatMap((id) => {
      const [there, wanted] = [found.get(id), this.known.get(id)];
      return Bun.deepEquals(there, wanted) ? [] : [{ id, there, wanted }];
    });
  }

  #choose(kind: Kind): string | undefined {
    if (kind === "add" || kind === "upload") return crypto.randomUUID();
    const wanted = [...this.known].find(([, { isWanted, isLinked }]) => {
      return kind === "link" ? !isLinked : !isWanted;
    });
    return wanted?.[0];
  }

  async #ask(kind: Kind, id: string): Promise<Answer> {
    const name = nameOf(id);
    if (kind === "add") return this.#daemon.ask({ Add: { id, path: this.#program, name } });
    if (kind === "link") return this.#daemon.ask({ Link: { type_name: "spare", to: id } });
    if (kind === "start") return this.#daemon.ask({ Start: id });
    if (kind === "remove") return this.#daemon.ask({ Remove: id });
    const bytes = Buffer.from(`${PROGRAM}# ${this.#uploads++} ${"x".repeat(6_000)}\n`);
    const hash = [...createHash("sha256").update(bytes).digest()];
    const control = await this.#daemon.control("native");
    const upload = { id, length: bytes.length, hash, name };
    const begun = await control.ask({ AddWithBinary: upload });
    if (begun.Err !== undefined) return begun;
    control.wire.send(frame(bytes));
    const answer = await control.answer();
    control.wire.close();
    return answer;
  }
}

function nameOf(id: string): string {
  return `one-${id.slice(0, 8)}`;
}

export interface DiskSize {
  readonly rounds: number;
  /** Of each half of a round: with room on the disk, and without. */
  readonly ms: number;
}

/**
 * State, output and uploads are on one small disk. Rounds take turns with room on it and without;
 * in both the same changes are asked for while messages flow. At last the daemon is killed while the
 * disk is full, and its successor has what was acknowledged.
 */
export async function fullDisk({ rounds, ms }: DiskSize): Promise<Outcome> {
  const disk = Disk.mount(DISK_BYTES);
  if (disk === undefined) throw new Error(NO_DISK);
  try {
    return await fillInRounds(disk, { rounds, ms });
  } finally {
    disk.unmount();
  }
}

async function fillInRounds(disk: Disk, { rounds, ms }: DiskSize): Promise<Outcome> {
  const state = join(disk.folder, "state");
  const pauseMs = ms / CHANGES;
  const pairs: { calm: Measure; disturbed: Measure }[] = [];
  const recoveries: number[] = [];
  let work = "";
  let [answerMs, leftOver] = [0, 0];
  const args = ["--state-dir", state, "--output-files", "1", "--output-size", "1MiB"];
  await withDaemon(
    async (daemon) => {
      const group = await Group.start(daemon, "T", { consumers: 2 });
      const print = daemon.script(PRINTER);
      const changer = new Changer(daemon, daemon.script(PROGRAM));
      await group.resume();
      await group.measure(ms);
      for (let round = 0; round < rounds; round++) {
        await changer.reset();
        const printer = await daemon.add(print); // a new one, or its output needs the room
        await daemon.start(printer);
        let turn = 0;
        const next = (): Kind => KINDS[turn++ % KINDS.length] as Kind;
        const calm = group.measure(ms);
        await during(calm, pauseMs, async () => {
          await changer.change(next(), false);
          if (changer.known.size > MOST) await changer.reset();
        });
        await changer.reset();
        const disturbed = group.measure(ms);
        await during(disturbed, pauseMs, async () => {
          disk.fill(); // what a change has let go of is taken again
          await changer.change(next(), true);
        });
        pairs.push({ calm: await calm, disturbed: await disturbed });
        await until("changes that need room are refused", async () => {
          disk.fill();
          await changer.change(next(), true);
          return NEED_ROOM.every((kind) => changer.refused[kind] > round);
        });
        await untilAsAcknowledged(changer, () => daemon.info());
        recoveries.push(await recover(daemon, disk, changer, printer));
        await daemon.stop(printer);
        await daemon.ok({ Remove: printer });
      }
      await group.settle();
      answerMs = percentile(changer.answers, 0.99);
      leftOver = await succeed(daemon, disk, changer, args);
      const refused = Object.values(changer.refused).reduce((sum, count) => sum + count, 0);
      work = `${changer.acknowledged} changes done and ${refused} refused, ${rounds} × full`;
    },
    { args },
  );
  const { rate, p99 } = compare(pairs);
  return {
    work,
    figures: [
      share("rate of messages", rate, 0.95, 0.5),
      multiple("p99 of messages", p99, 2, 20),
      milliseconds("answer p99", answerMs, 100, 5_000),
      milliseconds("recovered after", Math.max(...recoveries), 1_000, 5_000),
      { name: "left over", value: leftOver, unit: "", is: "at most", promised: 0, sane: 0 },
    ],
  };
}

/** Does something again and again until other work is over. */
async function during(
  work: Promise<unknown>,
  pauseMs: number,
  action: () => Promise<void>,
): Promise<void> {
  let isOver = false;
  const over = work.finally(() => {
    isOver = true;
  });
  while (!isOver) {
    await action();
    await Promise.race([over, Bun.sleep(pauseMs)]);
  }
  await over;
}

async function untilAsAcknowledged(changer: Changer, info: () => Promise<Info>): Promise<void> {
  let faults: unknown[] = [];
  await until(
    () => `what was acknowledged is there, and nothing else: ${JSON.stringify(faults)}`,
    async () => {
      faults = changer.faults(await info());
      return faults.length === 0;
    },
  );
}

/** Makes room; returns how long it takes until changes of all kinds are made and output is kept. */
async function recover(
  daemon: Daemon,
  disk: Disk,
  changer: Changer,
  printer: string,
): Promise<number> {
  await daemon.logged(new RegExp(`cannot write the output of .* id=${printer}`));
  const before = await lastLine(daemon, printer);
  disk.makeRoom();
  const begin = performance.now();
  for (const kind of KINDS) await changer.change(kind, false);
  await until("output is kept again", async () => (await lastLine(daemon, printer)) > before);
  return performance.now() - begin;
}

/** The number of the last line of a printer that is on disk. */
async function lastLine(daemon: Daemon, id: string): Promise<number> {
  const control = await daemon.control("veecle");
  await control.ok({ Output: { ids: [id], last: 1 } });
  const text = (await control.wire.rest()).toString();
  return Number(/line (\d+)/.exec(text)?.[1] ?? -1);
}

/**
 * The daemon is killed while the disk is full. Its successor serves or says why it does not; once
 * there is room it has what was acknowledged. Returns how many files nobody needs.
 */
async function succeed(
  daemon: Daemon,
  disk: Disk,
  changer: Changer,
  args: readonly string[],
): Promise<number> {
  disk.fill();
  for (const kind of KINDS) await changer.change(kind, true);
  daemon.signal("SIGKILL");
  await daemon.exit();
  const launch = (): Launched =>
    new Launched(["--control-socket", daemon.address, ...args], daemon.environment);
  const early = launch();
  const serves = await early.control(daemon.address).then(
    () => true,
    () => false,
  );
  if (!serves) {
    const { code, stderr } = await early.end();
    demand(code === 1 && /^error: .*the disk is full/m.test(stderr), "It says why", stderr);
  } else await early.end("SIGKILL");
  disk.makeRoom();
  const later = launch();
  const second = await later.control(daemon.address);
  const info = async (): Promise<Info> => (await second.ok("Info")) as Info;
  await untilAsAcknowledged(changer, info);
  const used = new Set(Object.values((await info()).runtimes).map(({ binary }) => binary));
  const folder = join(disk.folder, "state", "binaries");
  const left = readdirSync(folder).filter((name) => !used.has(join(folder, name)));
  await second.ok("Clear", 30_000);
  await later.end("SIGTERM");
  return left.length;
}
