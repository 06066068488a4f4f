// Whether an answer may be given: held against what was asked, and what has become durable.

import type { InstanceId } from "../../src/model.ts";
import type { Info } from "../../src/protocol/info.ts";
import { PROTOCOL_VERSION, type Response } from "../../src/protocol.ts";
import type { Ask } from "./asks.ts";
import type { Ledger } from "./ledger.ts";

export interface JudgeOptions {
  readonly ledger: Ledger;
  /** Whether a process of an instance lives. */
  lives(id: InstanceId): boolean;
  /** Whether the daemon says that it runs, or is to be started again. */
  isWanted(id: InstanceId): boolean;
  demand(isSo: boolean, what: string, found?: unknown): void;
}

export class Judge {
  readonly #options: JudgeOptions;
  /** Requests that were read; of clients that are gone, they may still be carried out. */
  readonly #open: Set<Ask> = new Set();
  /** Tags of instances that were answered with success. */
  readonly #tags: Set<string> = new Set();
  /** The last moment at which a process of an instance has ended. */
  readonly #endedAt: Map<InstanceId, number> = new Map();
  #happenings = 0;
  answers = 0;

  constructor(options: JudgeOptions) {
    this.#options = options;
  }

  /** A daemon was killed: what was asked of it is not answered. */
  forget(): void {
    this.#open.clear();
  }

  /** The last process of an instance has ended. */
  ended(id: InstanceId): void {
    this.#endedAt.set(id, ++this.#happenings);
  }

  delivered(ask: Ask): void {
    const { ledger, lives } = this.#options;
    this.#open.add(ask);
    ask.since = {
      commits: ledger.commits,
      happenings: this.#happenings,
      isIdle: ask.id !== undefined && !lives(ask.id),
      tags: ask.kind === "Clear" ? [...this.#tags] : [],
      kept: ask.writes === undefined ? 0 : ledger.kept(ask.writes),
    };
  }

  /** Something is written: somebody must have asked for it. */
  written(what: string): void {
    const isEnd = what.startsWith("remove ") || what.startsWith("unlink ");
    const isAsked = [...this.#open].some(
      ({ writes }) => writes === what || (isEnd && writes === "everything"),
    );
    this.#options.demand(isAsked, "what is written was asked for", what);
  }

  answered(ask: Ask, response: Response): void {
    const { demand } = this.#options;
    if (ask.kind === "AddWithBinary" && ask.due === 1) {
      demand("Ok" in response && response.Ok === null, "an upload is begun", response);
      return;
    }
    this.#open.delete(ask);
    this.answers++;
    if ("Ok" in response) this.#succeeded(ask, response.Ok);
    else this.#failed(ask, response.Err);
  }

  #failed({ kind, text, refusal, writes }: Ask, [first = "", ...causes]: readonly string[]): void {
    const { demand, ledger } = this.#options;
    demand(refusal.test(first), `${text} is refused with ${refusal}`, [first, ...causes]);
    const isOnce = writes?.startsWith("instance ") === true || writes?.startsWith("link ") === true;
    if (!isOnce) return;
    if (first.startsWith("The disk does not confirm")) {
      demand(ledger.committed(writes) === 1, "what is said to hold holds", text);
      return;
    }
    demand(ledger.kept(writes) === 0, `${kind} that is refused is not kept`, [text, first]);
  }

  #succeeded(ask: Ask, value: unknown): void {
    const { demand, ledger, lives, isWanted } = this.#options;
    const { kind, text, writes = "", id = "", since } = ask;
    if (since === undefined) return;
    switch (kind) {
      case "Add":
      case "AddWithBinary":
      case "Update":
      case "Link":
        demand(ledger.kept(writes) === 1, "what is answered is durable", text);
        if (kind !== "Link") this.#tags.add(writes.slice("instance ".length));
        break;
      case "Remove":
      case "Unlink":
        demand(ledger.kept(writes) > since.kept, "what is answered is gone for good", text);
        break;
      case "Clear": {
        const left = [...ledger.synced.instances.values()].flatMap(
          ({ settings: { args } }) => args,
        );
        const missed = since.tags.find((tag) => left.includes(tag));
        demand(missed === undefined, "nothing that was there before is left", missed);
        break;
      }
      case "Start": {
        const isKept = (ledger.wantedAt.get(id) ?? 0) > since.commits;
        const hasEnded = (this.#endedAt.get(id) ?? 0) > since.happenings;
        demand(isKept || hasEnded || !isWanted(id), "a start that is answered is durable", text);
        break;
      }
      case "Stop": {
        const hasEnded = (this.#endedAt.get(id) ?? 0) > since.happenings;
        demand(
          since.isIdle || hasEnded || !lives(id),
          "a stop that is answered has left nothing",
          text,
        );
        const isMeant = ledger.synced.instances.get(id)?.wanted === true;
        const isStarted = (ledger.wantedAt.get(id) ?? 0) > since.commits;
        demand(!isMeant || isStarted, "a stop that is answered is durable", text);
        break;
      }
      case "Info":
        this.#info(value as Info);
        break;
      case "Version":
        demand(value === PROTOCOL_VERSION, "the version is ours", value);
        break;
      case "Nonsense":
        demand(false, "nonsense is refused", text);
        break;
      case "Sent":
        demand(typeof value === "boolean", "it was sent, or not", value);
        break;
      case "Environment":
      case "Resources":
        demand(typeof value === "object" && value !== null, `${kind} is an object`, value);
        break;
      default:
        demand(value === null, `${kind} is answered with nothing`, value);
    }
  }

  /** Taken at one moment, an answer adds up in itself. */
  #info({ runtimes, routes }: Info): void {
    const { demand } = this.#options;
    for (const { delivered, dropped, queued, routed, ...link } of routes) {
      const lost = Object.values(dropped).reduce((sum, count) => sum + count, 0);
      demand(routed === delivered + lost + queued, "accounts add up in an answer", link);
    }
    for (const { state, running, pid } of Object.values(runtimes)) {
      demand(running === (pid !== null), "who runs has a pid", state);
    }
  }
}
