// What a control client may ask, and what may be answered to it.
//
// A request that changes something carries a tag that no other has, as an argument of the instance or
// the owner of the link: so every write to the store leads back to one request.

import type { LinkKey } from "../../src/model.ts";
import { encodeRequest, type Request } from "../../src/protocol.ts";
import type { InstanceSettings } from "../../src/settings.ts";
import type { Random } from "../support/random.ts";
import { idOf } from "../support/registry.ts";
import { TYPES } from "./guest.ts";
import { nameOf } from "./notebook.ts";

export interface Ask {
  readonly kind: Request["kind"] | "Nonsense";
  /** The request as JSON. */
  readonly text: string;
  /** What follows it, of an upload. */
  readonly raw: Buffer | undefined;
  /** What it may write, as the ledger calls it; of a `Clear`, everything that is removed. */
  readonly writes: string | undefined;
  /** The instance that it is about. */
  readonly id: string | undefined;
  /** How the first message of a refusal begins. */
  readonly refusal: RegExp;
  /** Nothing after it is answered: a stream follows, or the end. */
  readonly isLast: boolean;
  /** Answers that are still due. */
  due: number;
  /** Since when the daemon has all of the request; undefined: it has not. */
  since: Since | undefined;
}

/** How far everything was when a request was delivered. */
export interface Since {
  readonly commits: number;
  readonly happenings: number;
  /** No process of the instance lived. */
  readonly isIdle: boolean;
  /** Tags of instances that were answered before. */
  readonly tags: readonly string[];
  /** How often what it asks for was durable. */
  readonly kept: number;
}

/** How often what is asked, in parts. */
const WEIGHTS = {
  Add: 10,
  AddWithBinary: 4,
  Update: 5,
  Remove: 4,
  Start: 14,
  Stop: 6,
  Link: 16,
  Unlink: 4,
  Clear: 0.3,
  Info: 3,
  Version: 1,
  Environment: 1,
  Sent: 1,
  Resources: 1,
  Events: 4,
  Stdout: 4,
  Output: 4,
  Nonsense: 3,
} as const;
const TOTAL = Object.values(WEIGHTS).reduce((sum, part) => sum + part, 0);

const STREAMS: ReadonlySet<string> = new Set(["Events", "Stdout", "Output"]);
const NAMES = ["ping", "pong", "echo"] as const;
const DOUBTED = "The disk does not confirm the change";
const UNKEPT = `Cannot remember the change|${DOUBTED}`;

/** Makes requests; tags never repeat. */
export class Asks {
  readonly #random: Random;
  /** Ids from 1 to this one are asked for. */
  readonly #ids: number;
  #tags = 0;

  constructor(random: Random, ids: number) {
    this.#random = random;
    this.#ids = ids;
  }

  anyId(): string {
    return idOf(this.#random.int(1, this.#ids));
  }

  /** Every instance, some links, and a start of each. */
  opening(links: number): Ask[] {
    const ids = Array.from({ length: this.#ids }, (_, i) => idOf(i + 1));
    return [
      ...ids.map((id) => this.of("Add", id)),
      ...Array.from({ length: links }, () => this.of("Link")),
      ...ids.map((id) => this.of("Start", id)),
    ];
  }

  some(mayEnd: boolean): Ask {
    let chance = (this.#random.next() / 2 ** 32) * TOTAL;
    const kind =
      (Object.keys(WEIGHTS) as (keyof typeof WEIGHTS)[]).find(
        (name) => (chance -= WEIGHTS[name]) < 0,
      ) ?? "Info";
    if (STREAMS.has(kind) && !mayEnd) return this.of("Start");
    return this.of(kind);
  }

  of(kind: keyof typeof WEIGHTS, id: string = this.anyId()): Ask {
    const random = this.#random;
    const tag = `t${++this.#tags}`;
    const path = `/opt/${random.pick(NAMES)}`;
    switch (kind) {
      case "Version":
      case "Info":
        return ask({ kind }, { refusal: /^never/ });
      case "Clear":
        return ask(
          { kind },
          { writes: "everything", refusal: new RegExp(`^(Cannot clear|${DOUBTED})`) },
        );
      case "Add": {
        const settings = this.#settings(tag);
        const refusal = new RegExp(`^(Cannot (add instance "${id}"|listen)|${UNKEPT})`);
        return ask({ kind, id, path, settings }, { writes: `instance ${tag}`, id, refusal });
      }
      case "AddWithBinary":
        return this.#upload(id, tag);
      case "Update": {
        const given = random.chance(0.3) ? path : undefined;
        const refusal = new RegExp(`^(Cannot change instance "${id}"|${UNKEPT})`);
        const request: Request = { kind, id, path: given, settings: this.#settings(tag) };
        return ask(request, { writes: `instance ${tag}`, id, refusal });
      }
      case "Remove":
        return ask(
          { kind, id },
          { writes: `remove ${id}`, id, refusal: about("remove", id, DOUBTED) },
        );
      case "Start": {
        const refusal = new RegExp(`^(Cannot (start instance "${id}"|use)|${UNKEPT})`);
        return ask({ kind, id, priority: undefined }, { id, refusal });
      }
      case "Stop":
        return ask(
          { kind, id },
          { id, refusal: /^(Cannot stop instance|Instance ".*" is stopped)/ },
        );
      case "Environment":
        return ask({ kind, id }, { id, refusal: about("read the variables of", id) });
      case "Sent":
        return ask({ kind, id, typeName: "T" }, { id, refusal: about("look at", id) });
      case "Resources":
        return ask(
          { kind, ids: random.chance(0.5) ? undefined : [id] },
          { refusal: about("look at", id) },
        );
      case "Stdout":
        return ask({ kind, id }, { id, refusal: about("follow the output of", id), isLast: true });
      case "Output": {
        const query = { ...this.#history(), stream: undefined };
        return ask({ kind, query }, { refusal: /^Cannot read the output of/, isLast: true });
      }
      case "Events": {
        const query = { ...this.#history(), after: undefined };
        return ask({ kind, query }, { refusal: /^never/, isLast: true });
      }
      case "Link": {
        const link = this.#link();
        const onFull = random.pick(["drop-oldest", "drop-newest", "block"] as const);
        const bound = random.pick([
          { maxMessages: 1 },
          { maxMessages: random.size(1, 40) },
          { maxBytes: random.size(20, 3_000), maxMessages: Number.POSITIVE_INFINITY },
        ]);
        const settings = { maxBytes: 2 ** 28, ...bound, onFull, owner: tag };
        const refusal = new RegExp(`^(Cannot link|${UNKEPT})`);
        return ask({ kind, link, settings }, { writes: `link ${tag}`, refusal });
      }
      case "Unlink": {
        const link = this.#link();
        const writes = `unlink ${nameOf(link)}`;
        return ask({ kind, link }, { writes, refusal: new RegExp(`^(Cannot unlink|${DOUBTED})`) });
      }
      case "Nonsense":
        return this.#nonsense(tag);
    }
  }

  /** Something that is no request, and says which one it is. */
  #nonsense(tag: string): Ask {
    const isFatal = this.#random.chance(0.1);
    const id = idOf(1);
    const text = isFatal
      ? JSON.stringify({ AddWithBinary: { id, length: 3, hash: tag } })
      : this.#random.pick([`{"${tag}":1}`, `"${tag}"`, `{"Start":{"id":"${tag}"}}`]);
    const refusal = isFatal ? /^Cannot parse request/ : new RegExp(`^Cannot parse request.*${tag}`);
    // What follows may be the bytes that were announced, and must not be read as requests.
    const raw = isFatal ? Buffer.from('"Clear"\n"Info"\n') : undefined;
    return { ...blank(text, "Nonsense"), refusal, isLast: isFatal, raw };
  }

  #upload(id: string, tag: string): Ask {
    const random = this.#random;
    // What is hidden in the bytes must never be read as a request.
    const raw = random.pick([
      Buffer.from('"Clear"\n'),
      Buffer.from(`\0\0\0\x07"Clear"${tag}`),
      random.bytes(random.size(0, 400)),
      Buffer.from(`#!/bin/sh\n${tag}\n`),
    ]);
    const hash = new Bun.CryptoHasher("sha256").update(random.chance(0.9) ? raw : tag);
    const replace = random.chance(0.3);
    const request: Request = {
      kind: "AddWithBinary",
      id,
      length: raw.length,
      hash: hash.digest("hex"),
      replace,
      settings: this.#settings(tag),
    };
    const verb = replace ? "change" : "add";
    const refusal = new RegExp(`^(Cannot (${verb} instance "${id}"|listen)|${UNKEPT})`);
    return { ...ask(request, { writes: `instance ${tag}`, id, refusal }), raw, due: 2 };
  }

  #settings(tag: string): Partial<InstanceSettings> {
    const random = this.#random;
    return {
      args: [tag],
      ...(random.chance(0.2) ? { name: random.pick(NAMES) } : {}),
      restart: random.pick(["no", "on-failure", "always"] as const),
      restartDelayMs: random.pick([0, 10, 100]),
      stopGraceMs: random.pick([0, 100]),
      privileged: random.chance(0.5),
    };
  }

  #link(): LinkKey {
    const random = this.#random;
    const isRemote = random.chance(0.1);
    return {
      from: random.chance(0.5) ? undefined : this.anyId(),
      typeName: random.pick(TYPES),
      to: isRemote
        ? { kind: "remote", host: "127.0.0.1", port: random.int(1, 2) }
        : { kind: "instance", id: this.anyId() },
    };
  }

  #history() {
    const random = this.#random;
    return {
      ids: random.chance(0.3) ? [this.anyId()] : undefined,
      last: random.chance(0.3) ? random.int(0, 5) : undefined,
      since: undefined,
      until: undefined,
      follow: random.chance(0.7),
    };
  }
}

function about(verb: string, id: string, or: string = "never"): RegExp {
  return new RegExp(`^(Cannot ${verb} instance "${id}"|${or})`);
}

function ask(request: Request, more: Partial<Ask> & Pick<Ask, "refusal">): Ask {
  return { ...blank(encodeRequest(request), request.kind), ...more };
}

function blank(text: string, kind: Ask["kind"]): Ask {
  return {
    kind,
    text,
    raw: undefined,
    writes: undefined,
    id: undefined,
    refusal: /^never/,
    isLast: false,
    due: 1,
    since: undefined,
  };
}
