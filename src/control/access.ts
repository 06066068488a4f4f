// Who may use the control socket: by the kernel's word on this machine, by a token from elsewhere.
//
//   Unix path             our own user, and root
//   TCP, from loopback    our own user, and root: whoever owns the socket at the other end
//   TCP, from elsewhere   whoever sends the token first, or everybody if the daemon was told so

import { isLoopback } from "../address.ts";
import { OrchestratorError } from "../errors.ts";
import type { Origin } from "../socket.ts";

export interface AccessOptions {
  /** Our own. */
  readonly uid: number;
  /** What a client from elsewhere that connects now has to send; undefined: there is none. */
  token(): string | undefined;
  /** Serve everybody from elsewhere. */
  readonly isInsecure: boolean;
  /** The uid that owns the other end of a TCP connection of this machine. */
  ownerOf(origin: Extract<Origin, { kind: "tcp" }>): Promise<number | undefined>;
}

/** What is decided about a connection; `by` says in the log who it is. */
export type Verdict =
  | { readonly kind: "served"; readonly by: string }
  /** Nothing but the token is taken from it at first. */
  | { readonly kind: "locked"; readonly by: string; readonly isToken: (text: string) => boolean }
  | { readonly kind: "refused"; readonly by: string; readonly error: OrchestratorError };

/** The address of the other machine that a connection comes from, if it does. */
export function otherMachine(origin: Origin | undefined): string | undefined {
  if (origin?.kind !== "tcp" || isLoopback(origin.remote.address)) return undefined;
  return origin.remote.address;
}

export class Access {
  readonly #options: AccessOptions;

  constructor(options: AccessOptions) {
    this.#options = options;
  }

  /** Decides at once where nothing has to be looked up. */
  judge(origin: Origin): Verdict | Promise<Verdict> {
    if (origin.kind === "tcp") {
      return isLoopback(origin.remote.address)
        ? this.#judgeLocal(origin)
        : this.#judgeRemote(origin);
    }
    const { credentials } = origin;
    // Without the kernel's word it is the mode of the socket and its folder that keeps others out.
    if (credentials === undefined) return { kind: "served", by: "unix" };
    return this.#judgeUser(credentials.uid, `uid ${credentials.uid} pid ${credentials.pid}`);
  }

  async #judgeLocal(origin: Extract<Origin, { kind: "tcp" }>): Promise<Verdict> {
    const uid = await this.#options.ownerOf(origin);
    const { address, port } = origin.remote;
    if (uid !== undefined) return this.#judgeUser(uid, `uid ${uid} ${address}:${port}`);
    return refuse(`${address}:${port}`, "it cannot be told whose connection this is");
  }

  #judgeRemote({ remote: { address, port } }: Extract<Origin, { kind: "tcp" }>): Verdict {
    const by = `${address}:${port}`;
    const token = this.#options.token();
    if (token !== undefined) return { kind: "locked", by, isToken: comparison(token) };
    if (this.#options.isInsecure) return { kind: "served", by };
    return refuse(by, "from other machines a token is needed, and this daemon has none");
  }

  #judgeUser(uid: number, by: string): Verdict {
    if (uid === this.#options.uid || uid === 0) return { kind: "served", by };
    const own = this.#options.uid;
    // In the message, since whoever reads it may be any program.
    const hint = `ask as that user (sudo -u '#${own}'), or start an orchestrator of your own`;
    return refuse(by, `it serves user ${own}, and you are user ${uid}; ${hint}`);
  }
}

/**
 * Takes equally long for every text: digests are compared, to their last byte. (`node:crypto` has
 * `timingSafeEqual`, and takes 6 ms of every start to load.)
 */
function comparison(token: string): (text: string) => boolean {
  const digest = (text: string): Buffer => new Bun.CryptoHasher("sha256").update(text).digest();
  const expected = digest(token);
  return (text) =>
    digest(text).reduce((sum, byte, i) => sum | (byte ^ (expected[i] ?? 0)), 0) === 0;
}

function refuse(by: string, reason: string): Verdict {
  const error = new OrchestratorError(
    "permission_denied",
    `Cannot serve this connection: ${reason}`,
  );
  return { kind: "refused", by, error };
}
