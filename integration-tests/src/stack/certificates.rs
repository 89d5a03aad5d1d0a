//! Certificates for secured stacks: an authority, what it has signed, and what
//! nobody should accept.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

/// The name that the servers' certificate is made out to, and the address; both
/// reach this machine, as does 127.0.0.1, which it is not made out to.
pub const HOST: &str = "localhost";
pub const ADDRESS: &str = "127.0.0.2";

/// PEM files in one directory.
#[derive(Debug, Clone)]
pub struct Certificates {
    dir: PathBuf,
}

/// A certificate and its key.
#[derive(Debug, Clone)]
pub struct Identity {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Certificates {
    /// Those in `dir`, made if they are not there.
    pub(super) fn in_dir(dir: PathBuf) -> Result<Self> {
        let certificates = Self { dir };
        if !certificates.dir.exists() {
            let new = certificates.dir.with_extension("new");
            fs::create_dir_all(&new)?;
            make(&new).context("cannot make certificates")?;
            fs::rename(new, &certificates.dir)?;
        }
        Ok(certificates)
    }

    fn identity(&self, name: &str) -> Identity {
        Identity {
            certificate: self.dir.join(format!("{name}.pem")),
            key: self.dir.join(format!("{name}.key")),
        }
    }

    /// The authority that signed the servers' certificate.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// An authority that signed none of them.
    #[must_use]
    pub fn other_ca(&self) -> PathBuf {
        self.dir.join("other-ca.pem")
    }

    #[must_use]
    pub fn server(&self) -> Identity {
        self.identity("server")
    }

    /// A client that the servers accept.
    #[must_use]
    pub fn client(&self) -> Identity {
        self.identity("client")
    }

    /// A client whose time is over.
    #[must_use]
    pub fn expired(&self) -> Identity {
        self.identity("expired")
    }

    /// A client of the other authority.
    #[must_use]
    pub fn stranger(&self) -> Identity {
        self.identity("stranger")
    }
}

/// An authority, and where its certificate went.
fn authority(dir: &Path, name: &str) -> Result<Issuer<'static, KeyPair>> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    fs::write(dir.join(format!("{name}.pem")), certificate.pem())?;
    Ok(Issuer::new(params, key))
}

fn make(dir: &Path) -> Result<()> {
    let ca = authority(dir, "ca")?;
    let other = authority(dir, "other-ca")?;
    let mut server = CertificateParams::new(vec![HOST.to_owned()])?;
    server.subject_alt_names.push(SanType::IpAddress(ADDRESS.parse()?));
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    issue(dir, "server", server, &ca)?;
    issue(dir, "client", client(), &ca)?;
    issue(dir, "stranger", client(), &other)?;
    let mut expired = client();
    expired.not_before = date_time_ymd(2020, 1, 1);
    expired.not_after = date_time_ymd(2021, 1, 1);
    issue(dir, "expired", expired, &ca)
}

fn client() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "relay");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn issue(
    dir: &Path,
    name: &str,
    mut params: CertificateParams,
    issuer: &Issuer<'_, KeyPair>,
) -> Result<()> {
    let key = KeyPair::generate()?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let certificate = params.signed_by(&key, issuer)?;
    fs::write(dir.join(format!("{name}.pem")), certificate.pem())?;
    fs::write(dir.join(format!("{name}.key")), key.serialize_pem())?;
    Ok(())
}
