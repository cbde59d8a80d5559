use super::*;

fn file() -> serde_json::Value {
    let word = FieldBytes::ZERO;
    serde_json::json!({
        "format": PROOF_FILE_FORMAT, "curve": CURVE, "protocol": PROTOCOL, "circuit": "range_sum/v1/s1-t7",
        "fingerprint": Fingerprint::from_bytes([1; 32]), "insecure_dev_key": true, "public_inputs": [word, word, word],
        "context": { "statement": "range_sum", "height": 1, "db": format!("0x{}", "00".repeat(16)),
            "query": { "db": format!("0x{}", "00".repeat(16)), "projection": 0, "lane": 0, "ranges": [] } },
        "proof": format!("0x{}", "00".repeat(192)), "verification_key": "0x",
    })
}

fn read_value(value: &serde_json::Value) -> Result<ProofFile, ProofFileError> {
    read(&serde_json::to_vec(value).unwrap())
}

#[test]
fn reads_the_documented_form_and_checks_nothing_by_that() {
    let file = read_value(&file()).unwrap();
    assert!(check(&file, &KeySource::Binary).is_err());
}

#[test]
fn rejects_long_files_unknown_fields_and_inputs_of_r_or_more() {
    let long = vec![b' '; PROOF_FILE_BYTES_MAX + 1];
    assert!(matches!(read(&long), Err(ProofFileError::TooLong { .. })));
    assert!(matches!(read(b"{"), Err(ProofFileError::Malformed(_))));
    let spoils: [(&str, serde_json::Value); 6] = [
        ("verified", true.into()),
        ("public_inputs", serde_json::json!([format!("0x{}", hex::encode(fluence_types::field::MODULUS_BE))])),
        ("proof", "0x00".into()),
        ("fingerprint", "0x00".into()),
        ("circuit", "storage/v9/k1".into()),
        ("context", serde_json::json!({ "statement": "other" })),
    ];
    for (field, value) in spoils {
        let mut bad = file();
        bad[field] = value;
        assert!(matches!(read_value(&bad), Err(ProofFileError::Malformed(_))), "{field}");
        if field != "verified" {
            bad.as_object_mut().unwrap().remove(field);
            assert!(matches!(read_value(&bad), Err(ProofFileError::Malformed(_))), "{field} missing");
        }
    }
}

#[test]
fn rejects_malformed_key_files() {
    let good = serde_json::json!({ "format": KEY_FILE_FORMAT, "circuit": "range_sum/v1/s1-t7",
        "fingerprint": Fingerprint::from_bytes([1; 32]), "insecure_dev_key": true, "key": "0x00" });
    let read = |v: &serde_json::Value| KeyFile::read(&serde_json::to_vec(v).unwrap());
    assert!(matches!(read(&good), Err(ProofFileError::FileKey(_))));
    let mut bad = good.clone();
    bad["format"] = "fluence-vkey/2".into();
    assert!(matches!(read(&bad), Err(ProofFileError::Field { field: "format", .. })));
    bad = good;
    bad["key"] = "00".repeat(KEY_FILE_BYTES_MAX).into();
    assert!(matches!(read(&bad), Err(ProofFileError::TooLong { .. })));
}

/// The files that the clients read too: accepted as they are, refused however they are spoilt.
#[test]
fn a_real_file_is_accepted_and_each_spoilt_one_refused() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/proof_file.json");
    let vector: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let verify = |files: &serde_json::Value| {
        let bytes = |name: &str| serde_json::to_vec(&files[name]).unwrap();
        let (proof, key) = (read(&bytes("proof_file"))?, KeyFile::read(&bytes("key_file"))?);
        check(&proof, &KeySource::File(&key))
    };
    assert!(verify(&vector).unwrap().insecure_dev_key);
    let spoilt = vector["spoilt"].as_array().unwrap();
    assert!(spoilt.len() > 20);
    for spoil in spoilt {
        let mut files = vector.clone();
        let mut place = &mut files[spoil["file"].as_str().unwrap()];
        for step in spoil["at"].as_array().unwrap() {
            place = match (step.as_u64(), step.as_str()) {
                (Some(index), _) => &mut place[index as usize],
                (_, name) => &mut place[name.unwrap()],
            };
        }
        *place = spoil["to"].clone();
        assert!(verify(&files).is_err(), "{}", spoil["what"]);
    }
}
