//! The signed examples of RFC 7515 and RFC 7519, with each form that their keys can have.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use base64ct::{Base64UrlUnpadded, Encoding};
use jose::{Algorithm, Key, KeyError, Keys, Signer, TimeError, Token, TokenError, Validity};
use std::time::Duration;

/// `{"iss":"joe", "exp":1300819380, "http://example.com/is_root":true}`
const CLAIMS: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

const A1_KEY: &str = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
const A1_HEADER: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9";
const A1_SIGNATURE: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

const A2_JWK: &str = r#"{"kty":"RSA","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}"#;
const A2_HEADER: &str = "eyJhbGciOiJSUzI1NiJ9";
const A2_SIGNATURE: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";

const A3_JWK: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
const A3_HEADER: &str = "eyJhbGciOiJFUzI1NiJ9";
const A3_SIGNATURE: &str = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

const A2_PEM: &str = include_str!("keys/rfc7515-a2.pem");
const A2_PKCS1: &str = include_str!("keys/rfc7515-a2-pkcs1.pem");
const A3_PEM: &str = include_str!("keys/rfc7515-a3.pem");
const A3_PRIVATE: &str = include_str!("keys/rfc7515-a3-private.pem");

fn a1_secret() -> Vec<u8> {
    Base64UrlUnpadded::decode_vec(A1_KEY).unwrap()
}

fn token(header: &str, claims: &str, signature: &str) -> String {
    format!("{header}.{claims}.{signature}")
}

fn verify(token: &str, key: Key) -> Result<(), TokenError> {
    Token::parse(token)?.verify(&Keys::from(key)).map(|_| ())
}

#[test]
fn the_examples_are_verified() {
    for (header, signature, key) in [
        (A1_HEADER, A1_SIGNATURE, Key::shared(&a1_secret())),
        (A2_HEADER, A2_SIGNATURE, Key::from_jwk(A2_JWK.as_bytes())),
        (A2_HEADER, A2_SIGNATURE, Key::from_pem(A2_PEM)),
        (A2_HEADER, A2_SIGNATURE, Key::from_pem(A2_PKCS1)),
        (A3_HEADER, A3_SIGNATURE, Key::from_jwk(A3_JWK.as_bytes())),
        (A3_HEADER, A3_SIGNATURE, Key::from_pem(A3_PEM)),
    ] {
        let text = token(header, CLAIMS, signature);
        let claims = Token::parse(&text).unwrap().verify(&Keys::from(key.unwrap())).unwrap();
        assert_eq!(claims.text("iss"), Some("joe"));
        assert_eq!(claims.flag("http://example.com/is_root"), Some(true));
        let clock = |now| Validity { now: Duration::from_secs(now), skew: Duration::ZERO };
        assert_eq!(clock(1_300_819_379).check(&claims), Ok(()));
        assert_eq!(clock(1_300_819_380).check(&claims), Err(TimeError::Expired));
    }
}

#[test]
fn every_bit_of_a_signature_counts() {
    for (header, signature, key) in [
        (A1_HEADER, A1_SIGNATURE, Key::shared(&a1_secret()).unwrap()),
        (A2_HEADER, A2_SIGNATURE, Key::from_pem(A2_PEM).unwrap()),
        (A3_HEADER, A3_SIGNATURE, Key::from_pem(A3_PEM).unwrap()),
    ] {
        let bytes = Base64UrlUnpadded::decode_vec(signature).unwrap();
        for bit in (0..bytes.len() * 8).step_by(7) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let text = token(header, CLAIMS, &Base64UrlUnpadded::encode_string(&flipped));
            assert_eq!(verify(&text, key.clone()), Err(TokenError::Signature), "bit {bit}");
        }
        for length in [0, 1, bytes.len() - 1] {
            let cut = Base64UrlUnpadded::encode_string(&bytes[..length]);
            assert_eq!(verify(&token(header, CLAIMS, &cut), key.clone()), Err(TokenError::Signature), "{length} bytes");
        }
        let longer = Base64UrlUnpadded::encode_string(&[bytes.as_slice(), &[0]].concat());
        assert_eq!(verify(&token(header, CLAIMS, &longer), key.clone()), Err(TokenError::Signature));
        let zero = Base64UrlUnpadded::encode_string(&vec![0; bytes.len()]);
        assert_eq!(verify(&token(header, CLAIMS, &zero), key), Err(TokenError::Signature));
    }
}

#[test]
fn the_unsecured_example_is_refused_whatever_the_key() {
    // RFC 7515, appendix A.5, and the ways to write `none` that have fooled others.
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"None"}"#, r#"{"alg":"NONE"}"#, r#"{"alg":""}"#, r#"{"alg":"hs256"}"#]
    {
        let header = Base64UrlUnpadded::encode_string(header.as_bytes());
        for key in [Key::shared(&a1_secret()), Key::from_pem(A2_PEM), Key::from_pem(A3_PEM)] {
            for signature in ["", A1_SIGNATURE] {
                let text = token(&header, CLAIMS, signature);
                assert_eq!(verify(&text, key.clone().unwrap()), Err(TokenError::Algorithm), "{text}");
            }
        }
    }
}

#[test]
fn the_key_decides_the_algorithm() {
    // The classic: the public key, which everybody has, as the secret of an HS256 token.
    for public in [A2_PEM, A3_PEM, A2_PEM.trim(), A2_JWK, A3_JWK] {
        let forged = Signer::shared(public.as_bytes()).unwrap().sign(r#"{"sub":"root"}"#);
        assert_eq!(verify(&forged, Key::from_text(public).unwrap()), Err(TokenError::Algorithm));
    }
    let es256 = token(A3_HEADER, CLAIMS, A3_SIGNATURE);
    assert_eq!(verify(&es256, Key::from_pem(A2_PEM).unwrap()), Err(TokenError::Algorithm));
    assert_eq!(verify(&es256, Key::shared(&a1_secret()).unwrap()), Err(TokenError::Algorithm));
}

#[test]
fn a_public_key_is_never_taken_for_a_shared_one() {
    fn body(pem: &str) -> Vec<&str> {
        pem.lines().filter(|line| !line.starts_with('-')).collect()
    }
    for pem in [A2_PEM, A2_PKCS1, A3_PEM, A3_PRIVATE] {
        for text in [body(pem).concat(), body(pem).join("\n"), format!(" {}", body(pem).join("\r\n"))] {
            assert_eq!(Key::from_text(&text).unwrap_err(), KeyError::Bare);
        }
    }
    for line in ["ssh-rsa AAAAB3NzaC1yc2E=", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5", "ecdsa-sha2-nistp256 AAAAE2VjZHNh"] {
        assert_eq!(Key::from_text(line).unwrap_err(), KeyError::Bare);
    }
}

#[test]
fn the_seeds_key_is_a_shared_one() {
    let key = Key::from_text("a89gAzxvls0JKAKIJSBnnvvvkIO").unwrap();
    assert_eq!(key.algorithm(), Algorithm::Hs256);
}

#[test]
fn other_keys_are_refused_by_what_they_are() {
    let damaged = A3_PEM.replace("MFkw", "MFkx");
    let (before, after) = A3_PEM.split_at(60);
    let cut = format!("{before}\n-----END PUBLIC KEY-----\n");
    for (text, error) in [
        (include_str!("keys/p384.pem"), KeyError::Unsupported),
        (include_str!("keys/ed25519.pem"), KeyError::Unsupported),
        (include_str!("keys/rsa-1024.pem"), KeyError::RsaSize),
        (include_str!("keys/rsa-4104.pem"), KeyError::RsaSize),
        (include_str!("keys/certificate.pem"), KeyError::Certificate),
        (A3_PRIVATE, KeyError::Private),
        (&damaged, KeyError::Invalid),
        (&cut, KeyError::Pem),
        (after, KeyError::Pem),
        (&format!("{A2_PEM}{A3_PEM}"), KeyError::Pem),
        ("-----BEGIN PUBLIC KEY-----", KeyError::Pem),
        ("fifteen bytes..", KeyError::Short),
        ("", KeyError::Short),
    ] {
        assert_eq!(Key::from_text(text).map(|_| ()), Err(error), "{text}");
    }
}

#[test]
fn pem_may_have_blanks_around_it_and_windows_line_ends() {
    for text in [format!("\n  {A3_PEM}\n\n"), A3_PEM.replace('\n', "\r\n"), A2_PEM.trim_end().to_owned()] {
        assert!(Key::from_text(&text).is_ok(), "{text}");
    }
}

#[test]
fn what_is_signed_here_is_verified_here() {
    for (signer, key) in [
        (Signer::shared(&a1_secret()), Key::shared(&a1_secret())),
        (Signer::from_pem(A3_PRIVATE), Key::from_pem(A3_PEM)),
    ] {
        let (signer, key) = (signer.unwrap().with_id("a \"b\"\n"), key.unwrap().with_id("a \"b\"\n"));
        let text = signer.sign(r#"{"sub":"alice"}"#);
        assert_eq!(Token::parse(&text).unwrap().header().typ.as_deref(), Some("JWT"));
        assert_eq!(Token::parse(&text).unwrap().verify(&Keys::from(key)).unwrap().text("sub"), Some("alice"));
    }
    assert_eq!(Signer::from_pem(A3_PEM).unwrap_err(), KeyError::Unsupported);
}

#[test]
fn keys_and_tokens_are_never_printed() {
    let key = Key::shared(b"a-shared-secret-nobody-may-see").unwrap();
    let signer = Signer::shared(b"a-shared-secret-nobody-may-see").unwrap();
    let text = signer.sign(r#"{"sub":"alice"}"#);
    let token = Token::parse(&text).unwrap();
    assert_eq!(format!("{key:?}"), "Key { id: None, algorithm: Hs256, .. }");
    assert_eq!(format!("{signer:?}"), "Signer { id: None, secret: \"<redacted>\" }");
    assert_eq!(format!("{token:?}"), "Token { header: Header { alg: \"HS256\", kid: None, typ: Some(\"JWT\") }, .. }");
}
