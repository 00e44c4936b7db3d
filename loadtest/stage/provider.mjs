// A small OpenID provider that is strict and counts: PKCE, codes that work once, refresh tokens that work once (a second
// use ends the family), back-channel logout. `state.settings` changes its manners while it runs.
import { createHash, createSign, generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { form, post, send } from './http.mjs';

export const CLIENT = { id: 'loadtest', secret: 'loadtest-secret-for-this-machine-only' };
const KEY = generateKeyPairSync('rsa', { modulusLength: 2048 });
const KID = 'loadtest-1';
const PUBLIC = { ...KEY.publicKey.export({ format: 'jwk' }), kid: KID, use: 'sig', alg: 'RS256' };

const now = () => Math.floor(Date.now() / 1000);
const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
const random = () => randomBytes(24).toString('base64url');

function signed(typ, claims) {
  const head = `${encode({ alg: 'RS256', typ, kid: KID })}.${encode(claims)}`;
  return `${head}.${createSign('RSA-SHA256').update(head).sign(KEY.privateKey, 'base64url')}`;
}

export const SETTINGS = {
  lifetime: 300, // seconds of an access token
  ends_at: 0, // in place of it, for those of logins: the second (Unix time) at which all of them end
  delay: 0, // milliseconds that the token endpoint waits
  down: false, // whether everything but the browser's pages answers 503
  sabotage: '', // a defect, to see that a scenario notices
};

export class Provider {
  constructor(port) {
    this.issuer = `http://127.0.0.1:${port}`;
    this.codes = new Map();
    this.families = new Map(); // by id of the provider's session
    this.tokens = new Map(); // refresh token → its family, used or not
    this.settings = { ...SETTINGS };
    this.reset();
    createServer((asked, answer) => this.serve(asked, answer).catch((error) => {
      console.error(error);
      send(answer, 500, { error: 'server_error' });
    })).listen(port, '127.0.0.1');
  }

  /** Counts from now on. */
  reset() {
    this.count = { logins: 0, refreshes: 0, refused: 0, reused: 0, revoked: 0, logout_tokens: 0, logout_tokens_refused: 0 };
    for (const family of this.families.values()) family.refreshes = 0;
  }

  counters() {
    const counts = [...this.families.values()].map((family) => family.refreshes);
    return {
      ...this.count,
      families: counts.length,
      refreshed: counts.filter(Boolean).length,
      most_refreshes: counts.reduce((a, b) => Math.max(a, b), 0),
    };
  }

  async serve(asked, answer) {
    const url = new URL(asked.url, this.issuer);
    if (url.pathname === '/authorize') return this.authorize(asked, answer, url);
    if (url.pathname === '/logout') return this.logout(answer, url);
    if (this.settings.down && this.settings.sabotage === 'idp_outage') return this.refuse(answer);
    if (this.settings.down) return send(answer, 503, { error: 'temporarily_unavailable' });
    switch (url.pathname) {
      case '/.well-known/openid-configuration': return send(answer, 200, this.metadata());
      case '/jwks': return send(answer, 200, { keys: [PUBLIC] });
      case '/token': return this.token(await form(asked), asked, answer);
      case '/revoke': return this.revoke(await form(asked), answer);
      default: return send(answer, 404, { error: 'not_found' });
    }
  }

  metadata() {
    const at = (path) => this.issuer + path;
    return {
      issuer: this.issuer, authorization_endpoint: at('/authorize'), token_endpoint: at('/token'), jwks_uri: at('/jwks'),
      revocation_endpoint: at('/revoke'), end_session_endpoint: at('/logout'), response_types_supported: ['code'],
      subject_types_supported: ['public'], id_token_signing_alg_values_supported: ['RS256'], code_challenge_methods_supported: ['S256'],
      token_endpoint_auth_methods_supported: ['client_secret_basic'], authorization_response_iss_parameter_supported: true,
      backchannel_logout_supported: true, backchannel_logout_session_supported: true,
    };
  }

  async authorize(asked, answer, url) {
    const query = url.searchParams;
    const back = new URL(query.get('redirect_uri') ?? 'none:');
    if (back.hostname !== 'localhost' || query.get('client_id') !== CLIENT.id || query.get('code_challenge_method') !== 'S256') {
      return send(answer, 400, { error: 'invalid_request' });
    }
    if (asked.method !== 'POST') {
      const action = url.pathname + url.search.replaceAll('&', '&amp;').replaceAll('"', '%22');
      answer.writeHead(200, { 'content-type': 'text/html' });
      return answer.end(`<form method="post" action="${action}"><input name="username"><input name="password" type="password"></form>`);
    }
    const typed = (await form(asked)).get('username');
    const code = random();
    const user = this.settings.sabotage === 'login' ? 'somebody' : typed;
    this.codes.set(code, { user, nonce: query.get('nonce'), challenge: query.get('code_challenge'), back: query.get('redirect_uri') });
    for (const [key, value] of Object.entries({ code, state: query.get('state'), iss: this.issuer })) back.searchParams.set(key, value);
    answer.writeHead(303, { location: back.href });
    answer.end();
  }

  logout(answer, url) {
    const back = new URL(url.searchParams.get('post_logout_redirect_uri') ?? 'none:');
    if (back.hostname !== 'localhost') return send(answer, 400, { error: 'invalid_request' });
    if (url.searchParams.has('state')) back.searchParams.set('state', url.searchParams.get('state'));
    answer.writeHead(303, { location: back.href });
    answer.end();
  }

  async token(fields, asked, answer) {
    const basic = Buffer.from((asked.headers.authorization ?? '').replace(/^Basic /, ''), 'base64').toString();
    if (basic !== `${CLIENT.id}:${CLIENT.secret}`) return send(answer, 401, { error: 'invalid_client' });
    if (this.settings.delay) await new Promise((done) => setTimeout(done, this.settings.delay));
    if (fields.get('grant_type') === 'refresh_token') return this.refresh(fields.get('refresh_token'), answer);
    const code = this.codes.get(fields.get('code'));
    this.codes.delete(fields.get('code'));
    const challenge = createHash('sha256').update(fields.get('code_verifier') ?? '').digest('base64url');
    if (!code || code.challenge !== challenge || code.back !== fields.get('redirect_uri')) return this.refuse(answer);
    this.count.logins += 1;
    const family = { sid: random(), user: code.user, auth_time: now(), refreshes: 0, over: false };
    this.families.set(family.sid, family);
    // Never so short that it is over before it can be used, however slow the logins are.
    const ends = this.settings.ends_at ? Math.max(this.settings.ends_at, now() + 10) : now() + this.settings.lifetime;
    send(answer, 200, { ...this.issue(family, ends), id_token: this.idToken(family, code.nonce) });
  }

  refresh(shown, answer) {
    const entry = this.tokens.get(shown);
    if (!entry || entry.family.over || this.settings.sabotage === 'idp_slow') return this.refuse(answer);
    this.count.refreshes += 1;
    entry.family.refreshes += this.settings.sabotage === 'refresh_storm' ? 2 : 1;
    if (entry.used) {
      this.count.reused += 1;
      entry.family.over = true;
      return this.refuse(answer);
    }
    entry.used = true;
    send(answer, 200, this.issue(entry.family, now() + this.settings.lifetime));
  }

  refuse(answer) {
    this.count.refused += 1;
    send(answer, 400, { error: 'invalid_grant' });
  }

  issue(family, exp) {
    const { sid, user } = family;
    const refresh = random();
    this.tokens.set(refresh, { family, used: false });
    const claims = {
      iss: this.issuer, sub: `id-${user}`, aud: 'loadtest-api', client_id: CLIENT.id, iat: now(), exp, jti: random(), sid,
      preferred_username: user,
    };
    const access = signed('at+jwt', claims);
    return { token_type: 'Bearer', access_token: access, expires_in: exp - now(), refresh_token: refresh, refresh_expires_in: 3600 };
  }

  idToken({ sid, user, auth_time }, nonce) {
    return signed('JWT', {
      iss: this.issuer, sub: `id-${user}`, aud: CLIENT.id, iat: now(), exp: now() + 300, nonce, sid, auth_time, name: user,
      preferred_username: user,
    });
  }

  revoke(fields, answer) {
    const entry = this.tokens.get(fields.get('token'));
    if (entry) this.end(entry.family);
    this.count.revoked += 1;
    send(answer, 200, {});
  }

  /** The family and all its refresh tokens are forgotten, or the memory of a long run would grow. */
  end(family) {
    family.over = true;
    this.families.delete(family.sid);
    for (const [token, entry] of this.tokens) if (entry.family === family) this.tokens.delete(token);
  }

  /** The user has logged out elsewhere: a logout token for each of his sessions. */
  async endUser(user, address) {
    for (const family of [...this.families.values()].filter((one) => one.user === user)) {
      this.end(family);
      this.count.logout_tokens += 1;
      if (this.settings.sabotage === 'logout_storm') continue;
      const events = { 'http://schemas.openid.net/event/backchannel-logout': {} };
      const claims = { iss: this.issuer, aud: CLIENT.id, sub: `id-${user}`, sid: family.sid, iat: now(), exp: now() + 120, jti: random(), events };
      const status = await post(address, `logout_token=${signed('logout+jwt', claims)}`);
      if (status !== 200) this.count.logout_tokens_refused += 1;
    }
  }
}
