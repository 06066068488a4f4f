// R1, R2, R8: daemons that are killed at any moment, and their successors.

import { createHash } from "node:crypto";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import type { Info } from "../../src/protocol/info.ts";
import { withFolder } from "../support/daemon.ts";
import { Random } from "../support/random.ts";
import { type Answer, type Control, frame, until } from "../support/wire.ts";
import { demand, milliseconds, type Outcome, percentile } from "./outcome.ts";

const SOCKET = "veecle-orchestrator.socket";
const SANE_MS = 30_000;
const UPLOAD = Buffer.from("#!/bin/sh\nexec sleep 1000\n");

/** What a client knows of an instance of its own. */
interface Known {
  /** Whether it is meant to run. */
  isWanted: boolean;
  isLinked: boolean;
}

/** How an instance stands, if it is there. */
function standing(
  id: string,
  { runtimes, routes }: Pick<Info, "runtimes" | "routes">,
): Known | undefined {
  const runtime = runtimes[id];
  if (runtime === undefined) return undefined;
  return { isWanted: runtime.running, isLinked: routes.some(({ to }) => to === id) };
}

/** One that changes instances of its own, one request at a time, and remembers the answers. */
class Client {
  readonly known: Map<string, Known> = new Map();
  /** What was asked for and not answered: it may have been done or not. */
  doubt:
    { readonly id: string; readonly before: Known | undefined; readonly after?: Known } | undefined;
  answered = 0;
  readonly #random: Random;
  readonly #program: string;

  constructor(random: Random, program: string) {
    this.#random = random;
    this.#program = program;
  }

  /** Asks until the daemon is gone. */
  async work(control: Control): Promise<void> {
    for (;;) {
      const [id, before] = this.#choose();
      const kind =
        before === undefined
          ? this.#random.pick(["add", "add", "upload"] as const)
          : this.#random.pick(["link", before.isWanted ? "stop" : "start", "remove"] as const);
      if (kind === "remove" && before?.isWanted === true) continue;
      const after = this.#after(kind, before);
      this.doubt = { id, before, ...(after === undefined ? {} : { after }) };
      const answer = await this.#ask(control, kind, id, before).catch(() => undefined);
      if (answer === undefined) return;
      demand(answer.Err === undefined, `${kind} succeeds`, answer);
      if (after === undefined) this.known.delete(id);
      else this.known.set(id, after);
      this.doubt = undefined;
      this.answered++;
    }
  }

  /** What is there and was not answered, or is not there and was. */
  faults({ runtimes, routes }: Info): unknown[] {
    return [...this.#mine()].flatMap((id) => {
      const found = standing(id, { runtimes, routes });
      const isInDoubt = this.doubt?.id === id;
      const allowed = isInDoubt ? [this.doubt?.before, this.doubt?.after] : [this.known.get(id)];
      return allowed.some((state) => Bun.deepEquals(state, found)) ? [] : [{ id, allowed, found }];
    });
  }

  /** Makes certain what was in doubt. Returns everything that is its own. */
  async settle(control: Control, info: Info): Promise<Set<string>> {
    const mine = this.#mine();
    if (this.doubt === undefined) return mine;
    const { id, after }: { id: string; after?: Known } = this.doubt;
    const found = standing(id, info);
    this.doubt = undefined;
    if (found === undefined) this.known.delete(id);
    else if (after?.isWanted === true && !found.isWanted) {
      await control.ask({ Start: id }); // it may be about to run: an uploaded program is read first
      this.known.set(id, { ...found, isWanted: true });
    } else this.known.set(id, found);
    return mine;
  }

  #mine(): Set<string> {
    return new Set([...this.known.keys(), ...(this.doubt === undefined ? [] : [this.doubt.id])]);
  }

  #choose(): [string, Known | undefined] {
    const ids = [...this.known.keys()];
    if (ids.length < 3 || (ids.length < 8 && this.#random.chance(0.4))) {
      return [crypto.randomUUID(), undefined];
    }
    const id = this.#random.pick(ids);
    return [id, this.known.get(id)];
  }

  #after(kind: string, before: Known | undefined): Known | undefined {
    if (kind === "remove") return undefined;
    if (before === undefined) return { isWanted: false, isLinked: false };
    if (kind === "link") return { ...before, isLinked: !before.isLinked };
    return { ...before, isWanted: kind === "start" };
  }

  async #ask(
    control: Control,
    kind: string,
    id: string,
    before: Known | undefined,
  ): Promise<Answer> {
    const link = { type_name: "T", to: id };
    if (kind === "add") return control.ask({ Add: { id, path: this.#program } }, SANE_MS);
    if (kind === "link") {
      return control.ask(before?.isLinked === true ? { Unlink: link } : { Link: link }, SANE_MS);
    }
    if (kind === "start") return control.ask({ Start: id }, SANE_MS);
    if (kind === "stop") return control.ask({ Stop: id }, SANE_MS);
    if (kind === "remove") return control.ask({ Remove: id }, SANE_MS);
    const hash = [...createHash("sha256").update(UPLOAD).digest()];
    const begun = await control.ask(
      { AddWithBinary: { id, length: UPLOAD.length, hash } },
      SANE_MS,
    );
    if (begun.Err !== undefined) return begun;
    control.wire.send(frame(UPLOAD));
    return control.answer(SANE_MS);
  }
}

/** Clients change everything at random, and the daemon is killed at random: nothing answered is lost. */
export async function kills(size: {
  clients: number;
  rounds: number;
  seed: number;
}): Promise<Outcome> {
  let answered = 0;
  await withFolder(async (folder, launch) => {
    const random = new Random(size.seed);
    const program = join(folder, "program");
    writeFileSync(program, UPLOAD, { mode: 0o700 });
    const clients = Array.from({ length: size.clients }, () => new Client(random, program));
    for (let round = 0; round <= size.rounds; round++) {
      const daemon = launch(["--state-dir", join(folder, "state")]);
      const first = await daemon.control(join(folder, SOCKET));
      let faults: unknown[] = [];
      const info = await until(
        () => `what was answered is there, and nothing else: ${JSON.stringify(faults)}`,
        async () => {
          const found = (await first.ok("Info")) as Info;
          faults = clients.flatMap((client) => client.faults(found));
          return faults.length === 0 && found;
        },
      );
      const known = new Set<string>();
      for (const client of clients) {
        for (const id of await client.settle(first, info)) known.add(id);
      }
      const phantoms = Object.keys(info.runtimes).filter((id) => !known.has(id));
      demand(phantoms.length === 0, "Nothing is there that nobody asked for", phantoms);
      if (round === size.rounds) {
        await first.ok("Clear", SANE_MS);
        await daemon.end("SIGTERM");
        break;
      }
      // All before any begins: the daemon is killed as soon as enough is done, by whomever.
      const connect = (): Promise<Control> => daemon.control(join(folder, SOCKET));
      const controls = await Promise.all(clients.map(connect));
      const work = clients.map((client, i) => client.work(controls[i] as Control));
      const wanted = random.int(1, 60);
      const before = clients.reduce((sum, client) => sum + client.answered, 0);
      await until("something is done", () => {
        return clients.reduce((sum, client) => sum + client.answered, 0) >= before + wanted;
      });
      daemon.process.kill("SIGKILL");
      await Promise.all(work);
      await daemon.end();
    }
    answered = clients.reduce((sum, client) => sum + client.answered, 0);
  });
  return {
    work: `${size.rounds} × SIGKILL, ${answered} changes of ${size.clients} clients`,
    figures: [],
  };
}

/** A daemon that was killed serves again soon, and what was meant to run runs, once. */
export async function successors(size: { instances: number; rounds: number }): Promise<Outcome> {
  const serving: number[] = [];
  const running: number[] = [];
  await withFolder(async (folder, launch) => {
    const program = join(folder, "program");
    const complaints = join(folder, "complaints");
    // Whoever runs holds a lock; a second one that runs at the same time complains.
    const lines = [
      'exec 9>"$LOCK"',
      'flock -n 9 || echo "$LOCK" >> "$COMPLAINTS"',
      "exec sleep 1000",
    ];
    writeFileSync(program, `#!/bin/sh\n${lines.join("\n")}\n`, { mode: 0o700 });
    const args = ["--state-dir", join(folder, "state")];
    let daemon = launch(args);
    let control = await daemon.control(join(folder, SOCKET));
    for (let i = 0; i < size.instances; i++) {
      const id = crypto.randomUUID();
      const env = { LOCK: join(folder, `lock-${i}`), COMPLAINTS: complaints };
      await control.ok({ Add: { id, path: program, env } });
      await control.ok({ Start: id });
    }
    for (let round = 0; round < size.rounds; round++) {
      await daemon.end("SIGKILL");
      const begin = performance.now();
      daemon = launch(args);
      control = await daemon.control(join(folder, SOCKET));
      serving.push(performance.now() - begin);
      await until("all run", async () => {
        const { runtimes } = (await control.ok("Info")) as Info;
        return Object.values(runtimes).filter((one) => one.running).length === size.instances;
      });
      running.push(performance.now() - begin);
      demand(!existsSync(complaints), "None runs twice");
    }
    await control.ok("Clear", SANE_MS);
    await daemon.end("SIGTERM");
  });
  return {
    work: `${size.rounds} × SIGKILL with ${size.instances} instances`,
    figures: [
      milliseconds("serving after", percentile(serving, 0.5), 500, SANE_MS),
      milliseconds("all running after", percentile(running, 0.5), 500, SANE_MS),
    ],
  };
}

/** Daemons that are started at once: one serves, the others say why they do not. */
export async function rivals(count: number): Promise<Outcome> {
  let slowest = 0;
  await withFolder(async (folder, launch) => {
    const begin = performance.now();
    const daemons = Array.from({ length: count }, () => launch());
    const losers: number[] = [];
    await Promise.all(
      daemons.map(async (daemon, i) => {
        const code = await daemon.process.exited;
        if (code === null || losers.length >= count - 1) return;
        losers.push(i);
        slowest = Math.max(slowest, performance.now() - begin);
        if (losers.length === count - 1) {
          const winner = daemons.find((_, other) => !losers.includes(other));
          await winner?.control(join(folder, SOCKET));
          winner?.process.kill("SIGTERM");
        }
      }),
    );
    for (const i of losers) {
      const ended = await daemons[i]?.end();
      demand(ended?.code === 1, "It fails", ended);
      demand(/already|another daemon/.test(ended?.stderr ?? ""), "It says why", ended?.stderr);
    }
    demand(losers.length === count - 1, "One serves", losers.length);
  });
  return {
    work: `${count} daemons at once`,
    figures: [milliseconds("the last refused after", slowest, 1_000, SANE_MS * 2)],
  };
}
