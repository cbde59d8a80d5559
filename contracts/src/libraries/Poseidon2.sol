// SPDX-License-Identifier: Apache-2.0 OR MIT
// Written by scripts/poseidon2.mjs; change that and run it again.
pragma solidity 0.8.37;

/// @title Poseidon2 over the scalar field of BLS12-381: eight words, alpha 5, 8 full and 57 partial rounds.
/// @notice `compress(kind, x) = permute(x)[kind] + x[kind]`: every kind of node reads its own output word, so no value of one
/// kind passes for another. The kinds are those of `types::tree::NodeKind`.
/// @dev Source: https://eprint.iacr.org/2023/323; constants from its Grain LFSR. About 50k gas a permutation.
library Poseidon2 {
    /// @notice The order r of the scalar field.
    uint256 internal constant R = 0x73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001;
    /// @notice Output word of an inner node of a sum tree.
    uint256 internal constant SUM = 2;
    /// @notice Output word of a holdings root.
    uint256 internal constant HOLDINGS = 7;

    /// @dev 4 full rounds of 8 words, 57 partial rounds of one, 4 full rounds of 8; then the
    /// diagonal of the internal matrix less one.
    bytes private constant CONSTANTS =
        hex"53ada42ebdbe3750f185d8aed927c2a339b1023dfde196b58aea362b1458208b"
        hex"52a4bd5eaee58d29bfe574cafd97f987b1da709987e3d009ae971b0c627edad6"
        hex"3b7abfefc73e31a012cebfd0420df327dd6cf8bb1a94aded25e40cb1d97ae623"
        hex"18f6087444787b863f51d5f92722674e3440a076d35b3827ae2a34e2349fe613"
        hex"1f6c10016b4ca694f41014517b6fae4134912bdd35b66c1c61a40023f362f7e3"
        hex"37f5dd623b97256aa92ba9838b52e6b951481779f841cf5b158b52b264e19542"
        hex"3bcb78486b25ea78993bdcc3ac524daa00ccb29bace59b43147a6cd34e90ea9d"
        hex"42f7f2057893b0118ba72dee0390745595018499c07080263525fbee179f453f"
        hex"1ebff9e98d8913caea56fcfbde1fa0e28e7c88a6fd26ed1caacb2167ac01d46b"
        hex"50bc0b19ec65ae49190380dac906851effc5ded598dfc3a6dff9d193e28caa92"
        hex"173542f5c5f705e8c07eebce465ec04075911da44ffeba6135da9b9908661651"
        hex"104f0e4495d78b0988796d5099b0814c068357681e1f68df2e7589eab107bc18"
        hex"3aa82015f9de71497b0d3ab99e353f15fd90297226b3b0a721ef4637c3266da6"
        hex"218a066557035447f5f65c9ca1f6591b2e89836299bebb6434a4dc795df2575e"
        hex"4629ccf1af64824871ea33c70b354c6da36f8fd52c3e2377c7bf9ae7f3e9c30c"
        hex"4eb2718149318548c4f70554ea54d9e86c4fe4b5fe84dc4093b1369060a39d98"
        hex"4ef417e3aeededf50ebc47a5a8e2b571f3acbae751b3c263ee26c7cc25545b5b"
        hex"5662913ab2c59dc3413a934f86805c7442b258adeb728c3edb61a5c762945b84"
        hex"12e9df9b98795bd66de91037d43a8480cde436b30a5ed77be71f9d6674d7d445"
        hex"4927f30e0d987d23605c7cb4d903a3825bdc6ac7d08cecec1607621cbea26b47"
        hex"09388b6f741eeafbfc7cc4479778c2ea0013e98b33b767d117c0bd780bc6d7eb"
        hex"653915b04769ba57e58e29a163da6105c18897fe0c43754fcdf4275d0a89fcc2"
        hex"32aeaef7bcb8b97f927022113baffac5515ab9ec7f6e56c94924a787ca3b1043"
        hex"14d39fe74d6c0ce57ba40de0dacae628428f0b3021ac71e47856eba4ba1068b5"
        hex"65dacaec232936d47c3441c960736cfa3fdbe13e2599263ebdd5453cf716dbbd"
        hex"30838e97b66df6a39cdcda903a9c7f2834cba1f11c5a18a1a25ae1a851cd7cc5"
        hex"2ba21920ed4441cca37a95beff2c1dbabc66c089fab42787feb9c7d63f563db4"
        hex"48e82727bd3946dc067719d5387e7d8d8b96d150708c6007fade6ae7d8bb97f7"
        hex"72beb7592e1a8b5ffb67f9127f7eead42ae5c9565629b44aec7ee8064664b581"
        hex"0152c4c7e8f09d7d288077304f9e6f23d7be63746f73a6b486d66debd68be87b"
        hex"07658150e9fa7bafea32db94237a985857f11e7179d0d1665f5500eee99a6bbd"
        hex"0625e07f82a451842d18236aeda5ea8848405c54eb2bc2e9c721715d89e60e00"
        hex"6e8e2fef1424c978db61ab5307c57f5ae977cc0f992978a079898b818df71c38"
        hex"3bf1dcb8edb1778b295861f3f44653974369aadb6dc7a657ecf1e9b9f9975d0d"
        hex"224b5e5260d5a374a52d205dc4cf2f6ddd2e268c19d4d8c23a9a83ddd95f3b56"
        hex"258ba50efbf08421f9d84439e7198cf6d6d744c322496cbee7b0fad515483ce5"
        hex"57a9861d98e4f0c7f48a1c0f78b8c254db8f9023da33c0ebd80e6a2fac37a9ab"
        hex"6b4a81edff2101a784940a5d94d4997e1a7064e7d11cb30c8d44fc17fce5c7de"
        hex"646b6fe0fc67d8eb957fc7f5c71bb2eb49deb4d800f869f4a851d48452837f80"
        hex"72d1470e483ec6a6dba9515903f930b8913878c4d61f75264cb78bd6eb3897d5"
        hex"0eb84e097a3c154e3edcad691467aa2833cd6e2c034fc67c4aaddea3e612c0e4"
        hex"16726722e28b6834cf52a476e2c85a7796db36654e163d98a90ca5c9c5ec5cf4"
        hex"603a8ce41cd89892de62f80c2a69bf7c525ce2c9d73e179a40335573dafb5344"
        hex"6d29a4353cb4ce51421f99e98cf3cfea5df6cb84fda5972de3507926e1ce8517"
        hex"0b4bcf8b8440ddfcd96960ad3a942f08ee530594a22ba68902ac5cdb09dcb004"
        hex"57f898067bf97291642fc3f277c72aff1815dbdafaa153dd3f4dac4cfef65c4b"
        hex"21f7a5a0c323149d5ece7d787c5fffc64e3539ee2a9d0636bdee1fd4fc743195"
        hex"252bdc65bc46bae728b14a2cd124f9d89fca1d094a13938d5368bcbcfb61af24"
        hex"49e04438484178086f10025d4dd075129db6ee0543de3cd6260f005cbd1cfd12"
        hex"284070bc321a19aac8f72293ef5ee4047a25905571aa0fc0c92a99fb9aae502d"
        hex"432b6f998822a8bc1863d18966f0257e4ca02860d48b5da94b54c44e50148e9e"
        hex"2250a97daf4a6ab7e7ed38d562e45e557c6537095d5e82d8f8770c5606cc3723"
        hex"2190b0a04860c1754bfaea7c6656754719019afda4db1c2bdcc02e7077cb8fe4"
        hex"1ca5242b5b822ce4e547ef1044c25fa8e4e8ab34740ee80934bb783dfcd8ff00"
        hex"13ef424fbfa8f57f530b7472049e399b52d243ce631f46ab53e83896cccd1753"
        hex"313b6724e1ef1a2f8313faf995b286ca6c4e2935c938eda423799ad1ca4f074a"
        hex"71d6f906d7670070ed88307456824180c88df4d6c5c430ecde2d401468317dde"
        hex"5da276ba589d6ae24ac895bf495c021a5db46841aa15592ca792418c610392df"
        hex"5522c5df7aad8e48c28ff2409728ecbff493cde8ba22627834b472bd5f7e6159"
        hex"39fd68c744782320742384c631da42657f76ad1fbb4b31cd39f9b99871a658a9"
        hex"07073f7f19a99e127202010143d73eb9c607b8a472d08eef5028c014296aef92"
        hex"0c9b173245a88129f945616b7753804a79a923a9486099cbc68eeab1a18a3ecd"
        hex"0bc470541a2d0d36132b8c062b988a7a7fc617a194763d1df0d185870d435214"
        hex"14cef28cefade54ab09245615dcd4812f5838cb7e53cc3994db36597a839f598"
        hex"673b6489cf57eee2649fad4ed7917c77c01a510091db44cb0631ddee2970fda0"
        hex"1adf80dd643887e745ceb8f8a7482eba2fa9e3b2a9d78c04e34faf05edac21fd"
        hex"3421bebfd00f6d9984f8ae8713583cf904bc1cc931d9f2207e46f316bee5575b"
        hex"3377ebbc99869b1130415a8b6ef6828a091bbc962b770679ba2533b859b269bb"
        hex"531c3189cd8061e25c7b2880a75b5cf54a38eaffbe16a6bb8c03072177edb17a"
        hex"1de23e2b6a76564e456ec0ee314dd1137cb721458c6aea42e68db34f7bee4987"
        hex"3c63febcc1037470db1fefde11feafa09f6b93d1bd7f4ab69421204c7b909742"
        hex"27f9a7845ff4c11b37eafac24e732e279f871513b7e505964a44962f261079d1"
        hex"131e543c8cc3d66c79e2d34b339edb4e8de104f16222108cedf5ede0bc2a259c"
        hex"4903aacba7d57fbd9f8d5eba89a65e69c6dc17d00e0689ff78a853ebf2045260"
        hex"62c6809bc54290477c60ba3344b68e73079d2acf142f6fe1647bf77f7a9ecc0b"
        hex"1e88401ee384c7074e4cf262ce0fad617fac21c3179b13bfb9b9ae28b76b2ed9"
        hex"080a8905ec7191f9e1fdaca749100b1eaa03948e2ba109f9b235258574cbc103"
        hex"220515bc8e5f1b4b0e074e27f73c02b1fa4a4bab6623eab03681186a26a96dd7"
        hex"21d170c9860f7b318902d6e3e7892cd11d1d4a77f6f9d1bbc000f710686be1ef"
        hex"0ab7fc35aa93f80a4ed6787d9b121f34c2914515940f6d8ccbf44a1dc3d5e66f"
        hex"0920c263adbf43e70433816817a1a36526eba5e26e81a596abc53cbfd4e10c9d"
        hex"6263f1b033c09db0a316ee60ebd770795ea8910483248156918ae1f50a203de5"
        hex"61aea53c82e80114591feaf47fd76539eccaebeb7898f3861826c064b69442aa"
        hex"442d65617945bc65cb2c687fccac2e731a78cf925d848e9a26a5896c7cf7d6c2"
        hex"4045127d05c3cb34d005bcc59af6e7bf514c50e8287638f2af91309b1bb566b9"
        hex"21248b251f2613ad1e0037db0f662e480ba376a59211d53c0d4005b10ed07a72"
        hex"610b8e020b302c1e75de560c266e89758490a2852c7376e76999cbc2ecd4dfea"
        hex"4ce82f499dabebd5f5864d7b0545264a332c7bec6bcb8505e38cc6cc87940208"
        hex"323b2e2f2ccdb4fa2b7e0aa8ffe80fec5ebb2748371b1ee7367f9403a3017a45"
        hex"4ee2adaefeb04dd7d8d567bbc11022fb1ed7be60dddb7c1090bc2c2eaa20b3c2"
        hex"49df280184ea12aa38e1b7835016037fbe2214dbfffbed63b3afb3587fc4a2f8"
        hex"0742c9cd494e1f349b5cdda1354407d15528cdc5b149d52178bd749d11a6a62e"
        hex"4c3088160d362a2d49baee41a920d11d4a4fb1230b51923e3e8bc2931b3b1c14"
        hex"4146884271f8fddf477d774c4ea7e590a904858958cffbf2ff759727c6f4307f"
        hex"35852bcb36414611bd9416003e36e2fda46639647b009f20a1571fb62255c06a"
        hex"71380a2e9af86d10d3c853206f27affed5c8bbf04209265ec53dc16c3097cd6e"
        hex"316825bc6a3d33bc4574a2bc080b267e9f9032cdba13b392f3cef5651b7bd73b"
        hex"039ee257a7ab11b83ca2f84b4c3d2a43b9979593a3baf7fff31a1582463c9cd4"
        hex"3a7d9e3631877361748eaded828a1226a8fad1d9a26b904bb7672c5a1098b010"
        hex"08b2dde1aa612b89c9634b1984823f331515c10cbe93da28d579b4ad02950083"
        hex"286dbe8166b75b79b9382fe5e03d6a8e89e3e14a0d868222534c1840da654262"
        hex"5cd2d752b980033b428a3c8428e7c04c13b016659a9db1680ff0a8250be4345c"
        hex"664175d23039d55ca0721aafa919aa2d9e58f7a6585056e72f7861cb5c68df51"
        hex"017422f285fe185e8409bf4e808013694982a6b828e25b9d026fa94099d8c7f7"
        hex"4126fedd4ce3edd708f5504a7fb80d4568974d8efd2522fa777a205b59939d76"
        hex"362d386157a988e327180aea82fed73187fc9bb4317c8065074a1cefe3d29120"
        hex"5f9b6f0a37e1f10579bb8fc18c0e2f1a9accbb709f555d931d81939baf21a843"
        hex"451b11c73a54b552b6772e686b9f372c3a88057e3862538fe4fc93f3bca45220"
        hex"6dc7c344510f5dbca0bc1c8a43faae5562cdcef2195d3a98cd1cc0b80937ddef"
        hex"1acf4fa571f2dfa559eaa2ed75617022b7926b7e38969c3c404cb6b40a55c8d4"
        hex"601692f0671f9a0e5b645b81f6659fcbbec95700c6c49cc26551d006e2e2abc2"
        hex"2c418cde54947690050586e9fb648d979a04117c6a985951ac99d3a056091e03"
        hex"1099ebe36b8a483ff9160c7e49cf27d1275f35638f60d15c251d004bdf0be43c"
        hex"705ac07ef6e6f30e8587ddf3097181f1d6a821978343818ad66d0b2203e44990"
        hex"376f4d399472844d9823bc00f9d9ec7251273dc1f085c6aad969986f791ced02"
        hex"60dfac12ac5884c13e13677413285279d5f7b5dd0602ae87f028979005ea5c68"
        hex"41478c307faeb9fa78ca4fd7779f00688c7b7f77092f28fccd5a0263727ce5c4"
        hex"3d7640dc7ad95c1a5fe3bff9b6dd9f66d27bf6bc99d17ee167feeb09c4b77d9e"
        hex"427c360b99fe9d869528cf4e8abba951dea32b5b9b6fea4e3f39d9e715cd573d"
        hex"4e0fe9315cc9434a08a87aef6d65df043f8961650226f1cbe26bf55dd7ac2b76"
        hex"69a03bbfabd2a06359ad8c748bc99ec36cc1e2726940915317f15a813be413a0"
        hex"1118b610c2544efa26b70d9d60ca6ca362afcfff12436cf3b0f8a3ec5895d9ea"
        hex"5ba288c5197e71745a8fde16aca575e379dcc19f21042d8b9375e478f809325b"
        hex"079a987d87d7c80d5f4a3b4018517c50f5067ecb516f6bd14d79eabaa8349e62"
        hex"4c6497b0b99e1f1af4ec0322dc38869b2dfb79db3ab5fa68936cc8b6025aad1f"
        hex"483b5c5071e90c98bd353556453f04113442f29a1c4c236b4ca31890136bee4d"
        hex"3ef76c8bae0aa755dde594d8ec22b157f913323e5b29bbd0652e4b74973ac8f9"
        hex"091767b280c59a58a39f293bfc22ae944cb921c2efa240262b5b66312724f20b"
        hex"45ef82a5684137e5fc9613e0581cb65b5ad3d43470eacf0f060e1711c4c57623";

    /// @notice Puts the round constants in memory, once for any number of permutations.
    function load() internal pure returns (bytes memory constants) {
        constants = CONSTANTS;
    }

    /// @notice `permute(x)[word] + x[word]`. Every word of `x` is below R, `word` below 8; `x` is overwritten.
    /// @param constants As `load` gave them.
    function compress(bytes memory constants, uint256 word, uint256[8] memory x) internal pure returns (uint256) {
        uint256 before = x[word];
        permute(constants, x);
        return addmod(x[word], before, R);
    }

    /// @notice The permutation, in place.
    /// @param constants As `load` gave them.
    function permute(bytes memory constants, uint256[8] memory s) internal pure {
        assembly ("memory-safe") {
            function quarter(r, x0, x1, x2, x3) -> y0, y1, y2, y3 {
                let t0 := addmod(x0, x1, r)
                let t1 := addmod(x2, x3, r)
                y0 := addmod(mulmod(2, x3, r), t0, r)
                y2 := addmod(mulmod(2, x1, r), t1, r)
                y3 := addmod(mulmod(4, t1, r), y0, r)
                y1 := addmod(mulmod(4, t0, r), y2, r)
                y0 := addmod(y0, y1, r)
                y2 := addmod(y2, y3, r)
            }
            function mix(r, p, a, b) {
                let t := addmod(a, b, r)
                mstore(p, addmod(a, t, r))
                mstore(add(p, 128), addmod(b, t, r))
            }
            function linear(r, p) {
                let a0, a1, a2, a3 := quarter(r, mload(p), mload(add(p, 32)), mload(add(p, 64)), mload(add(p, 96)))
                let q := add(p, 128)
                let b0, b1, b2, b3 := quarter(r, mload(q), mload(add(q, 32)), mload(add(q, 64)), mload(add(q, 96)))
                mix(r, p, a0, b0)
                mix(r, add(p, 32), a1, b1)
                mix(r, add(p, 64), a2, b2)
                mix(r, add(p, 96), a3, b3)
            }
            function full(r, p, c) {
                let after_ := add(p, 256)
                for { let q := p } lt(q, after_) { q := add(q, 32) } {
                    let v := addmod(mload(q), mload(c), r)
                    let t := mulmod(v, v, r)
                    mstore(q, mulmod(mulmod(t, t, r), v, r))
                    c := add(c, 32)
                }
                linear(r, p)
            }
            let r := R
            linear(r, s)
            for { let c := add(constants, 32) } lt(c, add(constants, 1056)) { c := add(c, 256) } { full(r, s, c) }
            // Words 1..7 may stay below 2r between partial rounds: addmod and mulmod take any word.
            let s0 := mload(add(s, 0))
            let s1 := mload(add(s, 32))
            let s2 := mload(add(s, 64))
            let s3 := mload(add(s, 96))
            let s4 := mload(add(s, 128))
            let s5 := mload(add(s, 160))
            let s6 := mload(add(s, 192))
            let s7 := mload(add(s, 224))
            for { let c := add(constants, 1056) } lt(c, add(constants, 2880)) { c := add(c, 32) } {
                s0 := addmod(s0, mload(c), r)
                let t := mulmod(s0, s0, r)
                s0 := mulmod(mulmod(t, t, r), s0, r)
                t := addmod(s0, s1, r)
                t := addmod(t, s2, r)
                t := addmod(t, s3, r)
                t := addmod(t, s4, r)
                t := addmod(t, s5, r)
                t := addmod(t, s6, r)
                t := addmod(t, s7, r)
                s0 := add(mulmod(s0, mload(add(constants, 3904)), r), t)
                s1 := add(mulmod(s1, mload(add(constants, 3936)), r), t)
                s2 := add(mulmod(s2, mload(add(constants, 3968)), r), t)
                s3 := add(mulmod(s3, mload(add(constants, 4000)), r), t)
                s4 := add(mulmod(s4, mload(add(constants, 4032)), r), t)
                s5 := add(mulmod(s5, mload(add(constants, 4064)), r), t)
                s6 := add(mulmod(s6, mload(add(constants, 4096)), r), t)
                s7 := add(mulmod(s7, mload(add(constants, 4128)), r), t)
            }
            mstore(add(s, 0), addmod(s0, 0, r))
            mstore(add(s, 32), addmod(s1, 0, r))
            mstore(add(s, 64), addmod(s2, 0, r))
            mstore(add(s, 96), addmod(s3, 0, r))
            mstore(add(s, 128), addmod(s4, 0, r))
            mstore(add(s, 160), addmod(s5, 0, r))
            mstore(add(s, 192), addmod(s6, 0, r))
            mstore(add(s, 224), addmod(s7, 0, r))
            for { let c := add(constants, 2880) } lt(c, add(constants, 3904)) { c := add(c, 256) } { full(r, s, c) }
        }
    }
}
