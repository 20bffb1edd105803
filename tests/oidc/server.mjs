// The certified authorization server `oidc-provider` for the end-to-end tests: rotation and reuse detection on, bound to
// 127.0.0.1. What tokens mean is all the package's; ours are the storage (the built-in one forgets under load, and lets
// two racing requests consume one token), a log of refreshes by hashed token, and the /_test endpoints.
// Version 8 of the package is the last that runs on Debian 12's Node 18; 9 calls `URL.parse`, which newer Node has.
// Environment: ACCESS_TTL (s), TOKEN_DELAY_MS, LOG (a file). Prints {"issuer": …} once it listens; ends with its stdin.
import { createHash, generateKeyPairSync, randomUUID } from 'node:crypto';
import { appendFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';
import { Provider, errors } from 'oidc-provider';

const settings = {
  access_ttl: Number(process.env.ACCESS_TTL ?? 60),
  token_delay_ms: Number(process.env.TOKEN_DELAY_MS ?? 0),
};
const note = (entry) => appendFileSync(process.env.LOG, `${JSON.stringify(entry)}\n`, { mode: 0o600 });
const hashed = (token) => createHash('sha256').update(token ?? '').digest('hex').slice(0, 16);

const rows = new Map();
const OF_A_GRANT = ['AccessToken', 'RefreshToken', 'AuthorizationCode', 'DeviceCode'];
const DEVICE = 'urn:ietf:params:oauth:grant-type:device_code';
class Rows {
  constructor(model) { this.model = model; }
  id(id) { return `${this.model}/${id}`; }
  async upsert(id, payload) { rows.set(this.id(id), structuredClone(payload)); }
  async find(id) { return structuredClone(rows.get(this.id(id))); }
  async findByUid(uid) { return [...rows.values()].find((row) => row.uid === uid); }
  async findByUserCode(code) { return [...rows.values()].find((row) => row.userCode === code); }
  async destroy(id) { rows.delete(this.id(id)); }
  async consume(id) {
    const row = rows.get(this.id(id));
    if (row === undefined) throw new errors.InvalidGrant('unknown token');
    if (row.consumed) {
      // Two requests read the token unconsumed; as with a conditional update, the loser is a replay.
      for (const model of OF_A_GRANT) await new Rows(model).revokeByGrantId(row.grantId);
      note({ event: 'revoked' });
      throw new errors.InvalidGrant('token already consumed');
    }
    row.consumed = Math.floor(Date.now() / 1000);
  }
  async revokeByGrantId(grantId) {
    for (const [key, row] of rows) if (row.grantId === grantId && key.startsWith(`${this.model}/`)) rows.delete(key);
  }
}

// The keys of the clients that sign: the public half is registered, the private one is given out by /_test/key.
const keys = {
  'conf-pkjwt': generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  'conf-pkjwt-rsa': generateKeyPairSync('rsa', { modulusLength: 2048 }),
};
const signs = (client_id, alg) => ({
  client_id,
  token_endpoint_auth_method: 'private_key_jwt',
  token_endpoint_auth_signing_alg: alg,
  jwks: { keys: [{ ...keys[client_id].publicKey.export({ format: 'jwk' }), kid: 'k1', alg, use: 'sig' }] },
});

const server = createServer();
await new Promise((listening) => { server.listen({ host: '127.0.0.1', port: 0, backlog: 1024 }, listening); });
const issuer = `http://127.0.0.1:${server.address().port}`;
const provider = new Provider(issuer, {
  adapter: Rows,
  clients: [
    { client_id: 'public', token_endpoint_auth_method: 'none' },
    { client_id: 'confidential', client_secret: 'a secret+of/the%client', token_endpoint_auth_method: 'client_secret_basic' },
    { client_id: 'conf-basic', client_secret: 'basic-secret-0123456789abcdef0123456789', token_endpoint_auth_method: 'client_secret_basic' },
    { client_id: 'conf-post', client_secret: 'post-secret-0123456789abcdef0123456789', token_endpoint_auth_method: 'client_secret_post' },
    // RFC 6749 §2.3.1: id and secret are form-encoded before base64. This one finds those who forget.
    { client_id: 'conf:odd id', client_secret: 'a+b/c=d%2B:e&f?g h~i"j\\k', token_endpoint_auth_method: 'client_secret_basic' },
    signs('conf-pkjwt', 'ES256'),
    signs('conf-pkjwt-rsa', 'RS256'),
  ].map((client) => ({
    ...client,
    application_type: 'native',
    redirect_uris: ['http://127.0.0.1/callback', 'http://[::1]/callback', 'http://localhost/auth/callback', 'https://elsewhere.example/code'],
    grant_types: ['authorization_code', 'refresh_token', DEVICE],
    response_types: ['code'],
  })),
  scopes: ['openid', 'offline_access', 'api'],
  cookies: { keys: ['for-tests-only'] },
  // The development pages are forms that a scripted person can fill in.
  features: { devInteractions: { enabled: true }, deviceFlow: { enabled: true }, revocation: { enabled: true } },
  rotateRefreshToken: true,
  ttl: { AccessToken: () => settings.access_ttl, RefreshToken: 86400, Grant: 86400, IdToken: 300, Session: 86400, Interaction: 600, AuthorizationCode: 60, DeviceCode: 600 },
  findAccount: (_ctx, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
});
provider.on('grant.revoked', () => note({ event: 'revoked' }));
provider.use(async (ctx, next) => {
  await next();
  if (ctx.path !== '/token') return;
  const { grant_type: grant, refresh_token: token } = ctx.oidc?.params ?? {};
  if (grant === 'refresh_token') note({ event: 'refresh', status: ctx.status, token: hashed(token), error: ctx.body?.error });
  if (settings.token_delay_ms) await pause(settings.token_delay_ms);
});

async function mint() {
  const accountId = randomUUID();
  const client = await provider.Client.find('public');
  const grant = new provider.Grant({ accountId, clientId: 'public' });
  const scope = 'openid offline_access api';
  grant.addOIDCScope(scope);
  const grantId = await grant.save();
  const common = { accountId, client, grantId, scope, gty: 'authorization_code' };
  const refresh = new provider.RefreshToken({ ...common, rotations: 0, authTime: Math.floor(Date.now() / 1000) });
  const access = new provider.AccessToken(common);
  refresh.expiresIn = 86400;
  access.expiresIn = settings.access_ttl;
  return { access_token: await access.save(), refresh_token: await refresh.save(), token_type: 'Bearer', expires_in: settings.access_ttl, scope };
}

const handle = provider.callback();
server.on('request', async (request, response) => {
  const url = new URL(request.url, issuer);
  const reply = (status, value) => {
    const text = JSON.stringify(value);
    response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text), connection: 'close' });
    response.end(text);
  };
  if (url.pathname === '/_test/mint') return reply(200, await mint());
  if (url.pathname === '/_test/key') {
    const { privateKey } = keys[url.searchParams.get('client')];
    return reply(200, { pem: privateKey.export({ type: 'pkcs8', format: 'pem' }) });
  }
  if (url.pathname === '/_test/config') {
    for (const [name, value] of url.searchParams) settings[name] = Number(value);
    return reply(200, settings);
  }
  if (url.pathname === '/_test/api') {
    const bearer = (request.headers.authorization ?? '').replace(/^Bearer /, '');
    const found = bearer && await provider.AccessToken.find(bearer);
    return reply(found ? 200 : 401, {});
  }
  return handle(request, response);
});
// The package's notices go on after the one line that is read.
process.stdout.on('error', () => {});
process.stdin.resume().on('end', () => process.exit(0)).on('close', () => process.exit(0));
console.log(JSON.stringify({ issuer }));
