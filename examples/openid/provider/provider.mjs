// An OpenID provider to try the chain with: npm's oidc-provider, one client, and forms that take any name and password.
//
// It keeps everything in memory and makes its signing key when it starts: a restart rotates the key and forgets who is
// signed in. Never use it for anything but this.

import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';

const { values: options } = parseArgs({
  options: {
    listen: { type: 'string', default: '127.0.0.1:9000' },
    realm: { type: 'string', default: 'ingress' },
    // Where the gateway is, as browsers see it.
    site: { type: 'string', default: 'http://127.0.0.1:8080' },
    algorithm: { type: 'string', default: 'RS256' },
    'id-token-seconds': { type: 'string', default: '300' },
    // How far its clock is off.
    'clock-offset-seconds': { type: 'string', default: '0' },
  },
});

const secret = process.env.OPENID_CLIENT_SECRET;
if (!secret) {
  console.error('error: OPENID_CLIENT_SECRET is not set to the secret that the gateway has too');
  process.exit(2);
}

const offset = 1000 * Number(options['clock-offset-seconds']);
if (offset !== 0) {
  const now = Date.now;
  Date.now = () => now() + offset;
}

const { default: Provider } = await import('oidc-provider');

const [host, port] = options.listen.split(':');
const prefix = `/realms/${options.realm}`;
const issuer = `http://${options.listen}${prefix}`;
const kind = options.algorithm === 'ES256' ? ['ec', { namedCurve: 'P-256' }] : ['rsa', { modulusLength: 2048 }];
const key = generateKeyPairSync(...kind).privateKey.export({ format: 'jwk' });

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: options.realm,
      client_secret: secret,
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      redirect_uris: [`${options.site}/_openid/callback`],
      post_logout_redirect_uris: [`${options.site}/_openid/logged-out`],
      id_token_signed_response_alg: options.algorithm,
    },
  ],
  jwks: { keys: [{ ...key, kid: randomBytes(8).toString('hex'), alg: options.algorithm, use: 'sig' }] },
  cookies: { keys: [randomBytes(32).toString('hex')] },
  pkce: { required: () => true, methods: ['S256'] },
  // Every sign-in gets a refresh token, and each of them is good once.
  issueRefreshToken: (_, client) => client.grantTypeAllowed('refresh_token'),
  rotateRefreshToken: true,
  ttl: { IdToken: Number(options['id-token-seconds']), AccessToken: 300, RefreshToken: 3600, Session: 3600, Grant: 3600, Interaction: 600 },
});

// The gateway calls it by another name than browsers do; what it says of itself is the same to both.
const handle = provider.callback();
const server = createServer((request, response) => {
  if (!request.url.startsWith(`${prefix}/`)) {
    response.writeHead(404).end();
    return;
  }
  request.headers.host = options.listen;
  request.originalUrl = request.url;
  request.url = request.url.slice(prefix.length);
  handle(request, response);
});

server.on('error', (error) => {
  console.error(`error: failed to listen on ${options.listen}: ${error.message}`);
  process.exit(3);
});
server.listen(Number(port), host, () => console.log(`listening on http://${options.listen}`));
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(0));
